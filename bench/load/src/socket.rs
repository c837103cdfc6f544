//! Connections to the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// From one of 16 loopback addresses, so that there are ports enough for more clients than one address has.
pub fn connect(to: SocketAddr, number: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // The end of a run leaves no ports behind that wait.
    socket.set_linger(Some(Duration::ZERO))?;
    if matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        let from = Ipv4Addr::new(127, 0, 1, 1 + (number % 16) as u8);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
