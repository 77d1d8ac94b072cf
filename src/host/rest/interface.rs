//! The REST interface at the address where it listens now: a reload may move it.
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};

use super::serve_at;
use crate::host::request::Handle;
use crate::pure::config::HostPort;

/// Until the answer to whoever asked for the move is out.
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// A listening interface.
pub struct Interface {
    handle: Handle,
    now: RefCell<(HostPort, ServerHandle)>,
}

impl Interface {
    /// Listens on `listen` and answers.
    ///
    /// # Errors
    /// The address cannot be opened; the sentence names it.
    pub fn open(handle: Handle, listen: &HostPort) -> io::Result<Rc<Interface>> {
        let server = serve_at(handle.clone(), listen)?;
        let now = RefCell::new((listen.clone(), server.handle()));
        actix::spawn(server);
        Ok(Rc::new(Interface { handle, now }))
    }

    /// Listens on `listen` from now on; requests under way are answered at the old address.
    ///
    /// # Errors
    /// The address cannot be opened: the interface stays where it is.
    pub fn move_to(self: &Rc<Self>, listen: &HostPort) -> Result<(), String> {
        let here = self.now.borrow().0.clone();
        match serve_at(self.handle.clone(), listen) {
            Ok(server) => {
                let old = self.exchange(listen, server);
                actix::spawn(async move { old.stop(true).await });
                Ok(())
            }
            // Our own listener may be the one that is in the way.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && here.port == listen.port => {
                actix::spawn(self.clone().widen(here, listen.clone()));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Another address with the same port: the old one has to go first.
    async fn widen(self: Rc<Self>, from: HostPort, to: HostPort) {
        tokio::time::sleep(ANSWER_MAX).await;
        let old = self.now.borrow().1.clone();
        old.stop(true).await;
        for listen in [&to, &from] {
            match serve_at(self.handle.clone(), listen) {
                Ok(server) => {
                    self.exchange(listen, server);
                    return;
                }
                Err(error) => tracing::error!(%error, "the REST interface"),
            }
        }
    }

    fn exchange(&self, listen: &HostPort, server: Server) -> ServerHandle {
        let fresh = (listen.clone(), server.handle());
        actix::spawn(server);
        self.now.replace(fresh).1
    }

    /// Stops listening.
    pub async fn close(&self) {
        let handle = self.now.borrow().1.clone();
        handle.stop(false).await;
    }
}
