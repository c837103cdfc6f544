//! The clients of one process.

use std::io;
use std::ops::Range;

use mio::event::Event;
use mio::{Interest, Registry, Token};

use crate::args::Args;
use crate::client::{Client, Now};
use crate::plan::Plan;
use crate::socket;
use crate::tally::Tally;

pub struct Crowd {
    /// By their tokens.
    clients: Vec<Client>,
    /// Those that are still to come.
    coming: Range<u32>,
    connecting: usize,
    open: usize,
    pub tally: Tally,
    buffer: Vec<u8>,
}

impl Crowd {
    pub fn new(share: Range<u32>) -> Self {
        Self {
            clients: Vec::with_capacity(share.len()),
            coming: share,
            connecting: 0,
            open: 0,
            tally: Tally::new(),
            buffer: vec![0; 64 * 1024],
        }
    }

    pub fn open(&self) -> usize {
        self.open
    }

    /// Lets more of them connect, as many at the same time as are allowed.
    pub fn fill(
        &mut self,
        args: &Args,
        plan: &Plan,
        cursor: Option<&str>,
        registry: &Registry,
    ) -> io::Result<()> {
        while self.connecting < args.connecting
            && let Some(number) = self.coming.next()
        {
            let channels = plan.channels_of(number);
            let mut stream = socket::connect(args.target, number)?;
            let token = Token(self.clients.len());
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let missing = args.missed.map(|missed| missed / u64::from(args.channels) * channels.len() as u64);
            let request = request(args, number, &channels, cursor);
            self.clients.push(Client::new(stream, request, &channels, missing));
            self.connecting += 1;
        }
        Ok(())
    }

    pub fn on(&mut self, event: &Event, registry: &Registry, size: usize) {
        let Some(client) = self.clients.get_mut(event.token().0) else { return };
        match client.on(event, registry, &mut self.buffer, size, &mut self.tally) {
            Now::Same => {}
            Now::Opened => {
                self.open += 1;
                self.connecting -= 1;
            }
            // Those that never opened stay in `connecting`: a crowd that cannot come does not go on trying.
            Now::Ended => {}
        }
    }

    pub fn leave(&mut self, registry: &Registry) {
        for client in &mut self.clients {
            let _ = registry.deregister(client.socket());
        }
        self.clients.clear();
    }
}

fn request(args: &Args, client: u32, channels: &[u32], cursor: Option<&str>) -> Vec<u8> {
    let each: Vec<_> =
        channels.iter().map(|channel| args.each.replace("{channel}", &channel.to_string())).collect();
    let path = args
        .subscribe
        .replace("{channels}", &each.join(&args.between))
        .replace("{client}", &client.to_string());
    let resume = cursor.map(|cursor| format!("Last-Event-ID: {cursor}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{resume}\r\n", args.target)
        .into_bytes()
}
