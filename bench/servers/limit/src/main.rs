//! The limit: what the machine needs to bring an event to every client, and nothing else. A socket is accepted and given
//! a head; a publish is encoded once and given to each of its channel's sockets by one plain write. There is no
//! runtime, no buffer per connection, no log, no check. `bench-limit PORT THREADS`.
//!
//! The first thread has the listener and deals the sockets out in turn; a publish crosses to the others once.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Socket, Type};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

enum Message {
    Socket(TcpStream),
    Frame { channel: String, bytes: Arc<[u8]> },
}

struct Peer {
    messages: Sender<Message>,
    waker: Arc<Waker>,
}

impl Peer {
    fn tell(&self, message: Message) -> io::Result<()> {
        let _ = self.messages.send(message);
        self.waker.wake()
    }
}

struct Thread {
    poll: Poll,
    number: usize,
    peers: Vec<Peer>,
    messages: Receiver<Message>,
    listener: Option<TcpListener>,
    dealt: usize,
    /// By their places; one that is gone leaves a hole.
    sockets: Vec<Option<TcpStream>>,
    /// The places of a channel's sockets.
    channels: HashMap<String, Vec<usize>>,
    /// What has come of a request.
    requests: HashMap<usize, Vec<u8>>,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let (port, threads) = (args.next().expect("PORT"), args.next().unwrap_or(2));
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut listener = Some(listen(port as u16)?);

    let mut ends = Vec::new();
    for _ in 0..threads {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, messages) = channel();
        ends.push((poll, waker, sender, messages));
    }
    let peers =
        || ends.iter().map(|(_, waker, sender, _)| Peer { messages: sender.clone(), waker: waker.clone() });
    let peers: Vec<Vec<Peer>> = (0..threads).map(|_| peers().collect()).collect();
    let mut running = Vec::new();
    for (number, ((poll, _, _, messages), peers)) in ends.into_iter().zip(peers).enumerate() {
        let listener = listener.take();
        running.push(std::thread::spawn(move || {
            let mut thread = Thread {
                poll,
                number,
                peers,
                messages,
                listener,
                dealt: 0,
                sockets: Vec::new(),
                channels: HashMap::new(),
                requests: HashMap::new(),
            };
            thread.run().expect("the limit fails as a whole");
        }));
    }
    for thread in running {
        thread.join().expect("no thread panics");
    }
    Ok(())
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Thread {
    fn run(&mut self) -> io::Result<()> {
        if let Some(listener) = &mut self.listener {
            self.poll.registry().register(listener, LISTENER, Interest::READABLE)?;
        }
        let mut events = Events::with_capacity(256);
        loop {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => self.hear()?,
                    Token(place) => self.read(place)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let Some(listener) = &self.listener else { return Ok(()) };
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nodelay(true)?;
                    self.dealt += 1;
                    let to = self.dealt % self.peers.len();
                    if to == self.number {
                        self.seat(socket)?;
                    } else {
                        self.peers[to].tell(Message::Socket(socket))?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn seat(&mut self, mut socket: TcpStream) -> io::Result<()> {
        self.poll.registry().register(&mut socket, Token(self.sockets.len()), Interest::READABLE)?;
        self.sockets.push(Some(socket));
        Ok(())
    }

    fn hear(&mut self) -> io::Result<()> {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Socket(socket) => self.seat(socket)?,
                Message::Frame { channel, bytes } => self.fan_out(&channel, &bytes),
            }
        }
        Ok(())
    }

    fn read(&mut self, place: usize) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(socket) = &mut self.sockets[place] else { return Ok(()) };
            match socket.read(&mut buffer) {
                Ok(read) if read > 0 => {
                    self.requests.entry(place).or_default().extend_from_slice(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {
                    self.sockets[place] = None;
                    self.requests.remove(&place);
                    for places in self.channels.values_mut() {
                        places.retain(|other| *other != place);
                    }
                    return Ok(());
                }
            }
        }
        while self.request(place)? {}
        Ok(())
    }

    /// Answers one whole request; false if there is none.
    fn request(&mut self, place: usize) -> io::Result<bool> {
        let Some(input) = self.requests.get_mut(&place) else { return Ok(false) };
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(input) else { return Ok(false) };
        let path = request.path.unwrap_or_default();
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned();
        if request.method == Some("GET") {
            self.requests.remove(&place);
            self.write(place, HEAD);
            for channel in name.split(',') {
                self.channels.entry(channel.to_owned()).or_default().push(place);
            }
            return Ok(false);
        }
        let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length =
            length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
        let Some(body) = input.get(head..head + length) else { return Ok(false) };
        let bytes: Arc<[u8]> = [b"data: ", body, b"\n\n"].concat().into();
        input.drain(..head + length);
        for (number, peer) in self.peers.iter().enumerate() {
            if number != self.number {
                peer.tell(Message::Frame { channel: name.clone(), bytes: bytes.clone() })?;
            }
        }
        self.write(place, ACCEPTED);
        self.fan_out(&name, &bytes);
        Ok(true)
    }

    fn fan_out(&mut self, channel: &str, bytes: &[u8]) {
        for place in self.channels.get(channel).into_iter().flatten() {
            self.write(*place, bytes);
        }
    }

    fn write(&self, place: usize, bytes: &[u8]) {
        let Some(mut socket) = self.sockets[place].as_ref() else { return };
        match socket.write(bytes) {
            Ok(written) => assert_eq!(written, bytes.len(), "there is no buffer for the rest"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("there is no buffer for an event")
            }
            // Gone; its place is, too, as soon as that is read.
            Err(_) => {}
        }
    }
}
