//! Other processes with a share of the clients, for more streams than one process has descriptors. They are told and
//! tell by lines of JSON.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use mio::unix::pipe::Receiver;
use mio::{Events, Interest, Poll, Registry, Token};
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::crowd::Crowd;
use crate::plan::Plan;
use crate::tally::Counts;

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Measure { from: u64, to: u64 },
    Finish,
}

#[derive(Debug, Serialize, Deserialize)]
enum News {
    Far { open: usize, delivered: u64 },
    Finished { counts: Counts, latency: Vec<(u64, u64)> },
}

pub struct Helper {
    child: Child,
    orders: ChildStdin,
    news: Receiver,
    input: Vec<u8>,
    pub open: usize,
    pub delivered: u64,
    pub finished: Option<(Counts, Vec<(u64, u64)>)>,
}

impl Helper {
    pub fn start(number: u32, cursor: Option<&str>, token: Token, registry: &Registry) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).args(["--helper", &number.to_string()]);
        if let Some(cursor) = cursor {
            command.args(["--cursor", cursor]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, news) = (child.stdin.take(), child.stdout.take());
        let (orders, news) = orders.zip(news).ok_or(io::ErrorKind::BrokenPipe)?;
        let mut news = Receiver::from(news);
        news.set_nonblocking(true)?;
        registry.register(&mut news, token, Interest::READABLE)?;
        Ok(Self { child, orders, news, input: Vec::new(), open: 0, delivered: 0, finished: None })
    }

    pub fn measure(&mut self, from: u64, to: u64) -> io::Result<()> {
        tell(&mut self.orders, &Order::Measure { from, to })
    }

    pub fn finish(&mut self) -> io::Result<()> {
        tell(&mut self.orders, &Order::Finish)
    }

    pub fn on_news(&mut self) -> io::Result<()> {
        for news in hear(&mut self.news, &mut self.input)? {
            match news {
                News::Far { open, delivered } => (self.open, self.delivered) = (open, delivered),
                News::Finished { counts, latency } => self.finished = Some((counts, latency)),
            }
        }
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole of such a process.
pub fn run(args: &Args, number: u32) -> io::Result<()> {
    const ORDERS: Token = Token(usize::MAX);
    let plan = Plan::new(args);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut orders = Receiver::from(io::stdin().as_fd().try_clone_to_owned()?);
    orders.set_nonblocking(true)?;
    poll.registry().register(&mut orders, ORDERS, Interest::READABLE)?;
    let mut crowd = Crowd::new(args.share(number));
    let mut input = Vec::new();
    let mut told = (0, 0);
    loop {
        crowd.fill(args, &plan, args.cursor.as_deref(), poll.registry())?;
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for event in &events {
            if event.token() != ORDERS {
                crowd.on(event, poll.registry(), args.size);
                continue;
            }
            for order in hear(&mut orders, &mut input)? {
                match order {
                    Order::Measure { from, to } => crowd.tally.measured = from..to,
                    Order::Finish => {
                        let latency = crowd.tally.latency.pairs();
                        return tell(
                            &mut io::stdout(),
                            &News::Finished { counts: crowd.tally.counts, latency },
                        );
                    }
                }
            }
        }
        let far = (crowd.open(), crowd.tally.counts.delivered);
        if far != told {
            tell(&mut io::stdout(), &News::Far { open: far.0, delivered: far.1 })?;
            told = far;
        }
    }
}

fn tell<T: Serialize>(to: &mut impl Write, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// What was told since. The other end's end is an error: nobody is left to work for.
fn hear<T: for<'a> Deserialize<'a>>(from: &mut Receiver, input: &mut Vec<u8>) -> io::Result<Vec<T>> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) if input.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(read) => input.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let whole = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines: Vec<u8> = input.drain(..whole).collect();
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Ok(serde_json::from_slice(line)?))
        .collect()
}
