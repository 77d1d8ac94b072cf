//! What a service says to systemd (sd_notify(3)): that it is ready, reloads, stops.
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// Where the service manager listens. Its place is for the daemon alone, see
/// [`super::config::is_withheld`].
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Says nothing where nobody listens.
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// By the environment; one that cannot be used is told in the log and then left alone.
    pub fn from_environment() -> Notifier {
        let named = std::env::var_os(NOTIFY_SOCKET).filter(|name| !name.is_empty());
        Notifier(named.and_then(|name| match open(&name) {
            Ok(open) => Some(open),
            Err(error) => {
                tracing::warn!(%error, ?name, "{NOTIFY_SOCKET}: systemd cannot be told anything");
                None
            }
        }))
    }

    /// Signals are heeded from here on; also said when a reload has ended.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// A reload begins; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The daemon was told to stop.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    fn say(&self, what: &str) {
        let Some((socket, to)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), to) {
            tracing::warn!(%error, what, "systemd could not be told");
        }
    }
}

/// A path, or after an `@` an abstract name. Never waits for a listener that does not read.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = at.recv(&mut buffer).expect("something was said");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn speaks_to_a_path_and_to_an_abstract_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).expect("a socket");
        Notifier(Some(open(path.as_os_str()).expect("opens"))).ready();
        assert_eq!(heard(&at_path), "READY=1");

        let name = format!("surus-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let at_name = UnixDatagram::bind_addr(&address).expect("a socket");
        Notifier(Some(open(OsStr::new(&format!("@{name}"))).expect("opens"))).stopping();
        assert_eq!(heard(&at_name), "STOPPING=1");
        assert!(open(OsStr::new("vsock:2:1")).is_err());
    }

    #[test]
    fn a_reload_carries_its_time_in_the_same_message() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let at = UnixDatagram::bind(&path).expect("a socket");
        Notifier(Some(open(path.as_os_str()).expect("opens"))).reloading();
        let said = heard(&at);
        let micros = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&said);
        assert!(micros.parse::<u64>().expect("a number") > 0);
    }

    #[test]
    fn a_listener_that_is_gone_harms_nobody() {
        let gone = open(OsStr::new("/nowhere/notify")).expect("opens");
        Notifier(Some(gone)).ready();
        Notifier(None).ready();
    }
}
