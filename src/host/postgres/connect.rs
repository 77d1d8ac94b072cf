//! The way to the local server: its socket, shown to `peer` as the server's own account, or TCP, with TLS
//! as libpq's `sslmode` says.
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode as Wanted;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Connection;
use super::account::Account;
use super::files::Files;
use super::processes::blocking;
use super::session::{Refusal, refusal};
use super::tls::{self, SslMode, keyword};
use crate::pure::postgres::postmaster_pid;

/// A session and the task that reads for it.
pub type Open = (Client, JoinHandle<()>);

/// How the server is reached by its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The running server's lock file: its fifth line names the first directory of sockets.
    pub pid_file: PathBuf,
    /// When we are root: the account whose credentials the socket shows, as `peer` knows it.
    pub account: Option<Account>,
}

/// Opens `config` (user, password, options) at the place that `to` names. The caller bounds the time.
///
/// # Errors
/// [`Refusal`], in PostgreSQL's words where they exist.
pub async fn connect(to: &Connection, config: Config) -> Result<Open, Refusal> {
    match socket_path(to).await? {
        Some(path) => by_socket(to, config, path).await,
        None => by_network(to, config).await,
    }
}

/// Where the running server listens; `None`: no socket is wanted, or the server has none.
async fn socket_path(to: &Connection) -> Result<Option<PathBuf>, Refusal> {
    if to.host.starts_with('/') {
        return Ok(Some(Path::new(&to.host).join(format!(".s.PGSQL.{}", to.port))));
    }
    let Some(socket) = to.socket.clone() else { return Ok(None) };
    let read = move || Files::of(socket.account.as_ref()).read(&socket.pid_file);
    let read = blocking(read).await;
    let text = read.and_then(|read| read).map_err(Refusal::NotThere)?;
    let file = text.as_deref().and_then(|text| postmaster_pid::parse(text).ok());
    let dir = file.and_then(|file| file.socket_dir);
    Ok(dir.map(|dir| Path::new(&dir).join(format!(".s.PGSQL.{}", to.port))))
}

async fn by_socket(to: &Connection, config: Config, path: PathBuf) -> Result<Open, Refusal> {
    let place = path.display().to_string();
    let account = to.socket.as_ref().and_then(|socket| socket.account.clone());
    let stream = blocking(move || open_socket(&path, account.as_ref()))
        .await
        .and_then(|opened| opened.map_err(|error| error.to_string()))
        .and_then(|opened| UnixStream::from_std(opened).map_err(|error| error.to_string()))
        .map_err(|error| Refusal::NotThere(format!("{place}: {error}")))?;
    let opened = config.connect_raw(stream, NoTls).await;
    Ok(driven(opened.map_err(|error| refusal(&place, &error))?))
}

/// Connects as `account`: the kernel notes the effective user of the thread that connects. The thread
/// ends with the call, so that no other work is done under that identity. Blocks.
fn open_socket(path: &Path, account: Option<&Account>) -> std::io::Result<BlockingStream> {
    let connecting = || {
        if let Some(account) = account {
            account.assume_in_thread()?;
        }
        let stream = BlockingStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("socket".into());
        let ended = thread.spawn_scoped(scope, connecting)?.join();
        ended.unwrap_or_else(|_| Err(std::io::Error::other("the connecting thread panicked")))
    })
}

/// libpq's order: `prefer` goes without TLS where TLS fails or is not let in, `allow` the other way round.
async fn by_network(to: &Connection, config: Config) -> Result<Open, Refusal> {
    let mode = SslMode::parse(keyword(&to.options, "sslmode").unwrap_or_default());
    let mode = mode.map_err(Refusal::Denied)?;
    let (first, second) = match mode {
        SslMode::Disable => (SslMode::Disable, None),
        SslMode::Allow => (SslMode::Disable, Some(SslMode::Require)),
        SslMode::Prefer => (SslMode::Prefer, Some(SslMode::Disable)),
        other => (other, None),
    };
    let refused = match attempt(to, &config, first).await {
        Err(refused) if refused.is_denied() => refused,
        other => return other,
    };
    let Some(second) = second else { return Err(refused) };
    // What is wrong with a password is wrong in both ways: the first answer says it better.
    attempt(to, &config, second).await.map_err(|_| refused)
}

async fn attempt(to: &Connection, config: &Config, mode: SslMode) -> Result<Open, Refusal> {
    let place = format!("{}:{}", to.host, to.port);
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await;
    let stream = stream.map_err(|error| Refusal::NotThere(format!("{place}: {error}")))?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut config = config.clone();
    if mode == SslMode::Disable {
        config.ssl_mode(Wanted::Disable);
        return open(config, stream, NoTls, &place).await;
    }
    config.ssl_mode(if mode == SslMode::Prefer { Wanted::Prefer } else { Wanted::Require });
    let options = to.options.clone();
    let client = blocking(move || tls::client(&options, mode)).await.and_then(|client| client);
    let mut maker = MakeRustlsConnect::new(client.map_err(Refusal::Denied)?);
    let name = match ServerName::try_from(to.host.as_str()) {
        Ok(_) => to.host.as_str(),
        Err(_) => "localhost",
    };
    let made = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut maker, name);
    let tls = made.map_err(|error| Refusal::Denied(format!("{place}: {error}")))?;
    open(config, stream, tls, &place).await
}

async fn open<S, T>(config: Config, stream: S, tls: T, place: &str) -> Result<Open, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let opened = config.connect_raw(stream, tls).await;
    Ok(driven(opened.map_err(|error| refusal(place, &error))?))
}

fn driven<S, T>((client, connection): (Client, tokio_postgres::Connection<S, T>)) -> Open
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The client learns of the end by its own next call.
    (client, tokio::spawn(async move { drop(connection.await) }))
}
