//! The connection below a client's stream, as far as it can be cut.
//!
//! A server gives nobody its sockets, and waits as long as it takes for one that takes a few bytes now and then. The number
//! of the descriptor is enough to end that, together with the socket's own number: a descriptor's is given anew once it
//! is closed, and both are looked at on the thread that the connection belongs to, so it cannot change in between.

#[cfg(target_os = "linux")]
pub(crate) use linux::Line;

/// Elsewhere there is no way to tell a socket from the next one with its number.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {}

#[cfg(not(target_os = "linux"))]
impl Line {
    pub(crate) fn of(_: i32, _: bool) -> Option<Self> {
        None
    }

    pub(crate) fn is_kept(self) -> bool {
        match self {}
    }

    pub(crate) fn cut(self) {
        match self {}
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::RawFd;

    use nix::sys::socket::{Shutdown, shutdown};

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Line {
        descriptor: RawFd,
        socket: u64,
        is_kept: bool,
    }

    impl Line {
        /// The line of a descriptor that is open, if it is a socket; `is_kept` if it is used again after a stream.
        pub(crate) fn of(descriptor: RawFd, is_kept: bool) -> Option<Self> {
            Some(Self { descriptor, socket: socket(descriptor)?, is_kept })
        }

        /// Whether the connection goes on when a stream on it has ended: then its server bounds what follows.
        pub(crate) fn is_kept(self) -> bool {
            self.is_kept
        }

        /// Ends the connection, if it is still there. What waits to be written is given up.
        pub(crate) fn cut(self) {
            if socket(self.descriptor) != Some(self.socket) {
                return;
            }
            match shutdown(self.descriptor, Shutdown::Both) {
                Ok(()) => {
                    tracing::debug!(?self, "a connection is cut, its client takes too long to take the end");
                }
                // The peer was faster.
                Err(error) => tracing::debug!(?self, %error, "a connection cannot be cut"),
            }
        }
    }

    /// The number of the socket that has this descriptor.
    fn socket(descriptor: RawFd) -> Option<u64> {
        let link = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    #[cfg(test)]
    mod tests {
        use std::io::Read;
        use std::net::{TcpListener, TcpStream};
        use std::os::fd::AsRawFd;

        use super::*;

        /// What was cut is at its end; a socket that only has the number of one that is gone is left alone.
        #[test]
        fn the_socket_itself_is_cut_and_no_other() {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let connect = || {
                let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
                (client, listener.accept().expect("accepted").0)
            };
            let (_first, taken) = connect();
            let line = Line::of(taken.as_raw_fd(), true).expect("a socket");
            let (mut other, at_other) = connect();
            // As if the number had been given anew.
            Line { descriptor: at_other.as_raw_fd(), ..line }.cut();
            other.set_nonblocking(true).expect("an option");
            assert!(other.read(&mut [0]).is_err(), "it is still open");
            let (mut client, server) = connect();
            Line::of(server.as_raw_fd(), true).expect("a socket").cut();
            assert_eq!(client.read(&mut [0]).expect("an end"), 0);
            assert!(Line::of(RawFd::MAX, true).is_none());
        }
    }
}
