//! One run, phase by phase, on one thread: what the generator uses is taken from the server on a small machine.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::args::Args;
use crate::clock::{self, seconds};
use crate::crowd::Crowd;
use crate::helper::Helper;
use crate::plan::Plan;
use crate::proc::{self, Usage};
use crate::publisher::{Answers, Publisher};
use crate::report::{Quantiles, Report};
use crate::source::{Pace, Source};
use crate::tally::{Counts, Latency};

const TIMER: Token = Token(usize::MAX);
const PUBLISHERS: Token = Token(usize::MAX - 1);
const HELPERS: usize = 1 << 32;
/// Clients that are read before what is to be published gets its turn.
const BATCH: usize = 64;
/// For all to connect, or for what is missed to be published.
const PATIENCE: f64 = 60.0;

pub fn run(args: &Args) -> io::Result<Report> {
    let mut run = Run::new(args)?;
    let mut report = Report { clients: args.clients, channels: args.channels, ..Report::default() };
    report.memory_before_kib = proc::memory(args.pid);
    let publishing = args.duration > 0.0 || args.missed.is_some();
    if publishing {
        run.open_publishers()?;
    }
    if let Some(missed) = args.missed {
        run.publish_missed(missed)?;
        run.come_back(&mut report)?;
    } else {
        run.come(&mut report)?;
        if publishing {
            run.measure(&mut report)?;
        }
    }
    report.memory_after_kib = proc::memory(args.pid);
    run.finish(&mut report)?;
    Ok(report)
}

struct Run<'a> {
    args: &'a Args,
    plan: Plan,
    poll: Poll,
    events: Events,
    /// The publishers have a poll of their own: an answer does not wait behind a thousand deliveries, and the next publish
    /// does not either.
    publisher_poll: Poll,
    publisher_events: Events,
    timer: OwnedFd,
    /// For when the timer is set.
    armed: u64,
    crowd: Crowd,
    helpers: Vec<Helper>,
    publishers: Vec<Publisher>,
    source: Source,
    answers: Answers,
    receipts: Latency,
    /// Clients may connect.
    doors: bool,
    cursor: Option<String>,
}

impl<'a> Run<'a> {
    fn new(args: &'a Args) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let publisher_poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&publisher_poll.as_raw_fd()),
            PUBLISHERS,
            Interest::READABLE,
        )?;
        Ok(Self {
            args,
            plan: Plan::new(args),
            poll,
            events: Events::with_capacity(BATCH),
            publisher_poll,
            publisher_events: Events::with_capacity(BATCH),
            timer,
            armed: 0,
            crowd: Crowd::new(args.share(0)),
            helpers: Vec::new(),
            publishers: Vec::new(),
            source: Source::new(args),
            answers: Answers::default(),
            receipts: Latency::new(),
            doors: false,
            cursor: None,
        })
    }

    fn open_publishers(&mut self) -> io::Result<()> {
        for number in 0..self.args.publishers {
            let registry = self.publisher_poll.registry();
            self.publishers.push(Publisher::new(number, Token(number as usize), self.args, registry)?);
        }
        Ok(())
    }

    fn open_doors(&mut self) -> io::Result<()> {
        self.doors = true;
        for number in 1..self.args.processes {
            let token = Token(HELPERS + number as usize - 1);
            self.helpers.push(Helper::start(number, self.cursor.as_deref(), token, self.poll.registry())?);
        }
        Ok(())
    }

    /// All clients come; then their memory is read.
    fn come(&mut self, report: &mut Report) -> io::Result<()> {
        let kernel = proc::kernel_memory();
        let begin = clock::now();
        self.open_doors()?;
        let all = self.args.clients as usize;
        if !self.turn_until(begin + seconds(PATIENCE), |run| run.open() == all)? {
            return Err(io::Error::other(format!("{} of {all} streams were opened", self.open())));
        }
        report.connect_s = (clock::now() - begin) as f64 / 1e9;
        self.turn_until(clock::now() + seconds(self.args.settle), |_| false)?;
        report.memory_connected_kib = proc::memory(self.args.pid);
        let more = report.memory_connected_kib.saturating_sub(report.memory_before_kib);
        let kernel = proc::kernel_memory().saturating_sub(kernel);
        let per_client = |kib: u64| kib as f64 * 1024.0 / f64::from(self.args.clients);
        (report.bytes_per_client, report.kernel_bytes_per_client) = (per_client(more), per_client(kernel));
        Ok(())
    }

    fn measure(&mut self, report: &mut Report) -> io::Result<()> {
        let limit = self.args.window as f64 * self.plan.mean_followers() * f64::from(self.args.batch);
        self.source.pace = match self.args.rate {
            Some(per_second) => Pace::Rate { since: clock::now(), per_second },
            None if self.args.window == 0 => Pace::Until(u64::MAX),
            None => Pace::Window(limit),
        };
        self.turn_until(clock::now() + seconds(self.args.warmup), |_| false)?;

        let usage = Usage::read(self.args.pid);
        let from = clock::now();
        let to = from + seconds(self.args.duration);
        self.crowd.tally.measured = from..to;
        for helper in &mut self.helpers {
            helper.measure(from, to)?;
        }
        self.receipts = Latency::new();
        let (delivered, published) = (self.delivered(), self.source.published);
        self.turn_until(to, |_| false)?;
        let (delivered, published) = (self.delivered() - delivered, self.source.published - published);
        self.used(report, &usage, from, delivered, published);

        self.source.pace = Pace::Stopped;
        self.turn_until(clock::now() + seconds(self.args.drain), Self::complete)?;
        Ok(())
    }

    /// One event that nobody follows gives the cursor that all come back with.
    fn publish_missed(&mut self, missed: u64) -> io::Result<()> {
        let deadline = clock::now() + seconds(PATIENCE);
        let marker = self.args.channels;
        self.turn_until(deadline, |run| run.publishers[0].free(run.args))?;
        let body = self.source.body(marker, clock::now(), 1, self.args, &self.plan);
        self.publishers[0].publish(marker, &body, self.args)?;
        self.turn_until(deadline, |run| run.answers.accepted + run.answers.refused > 0)?;
        let cursor = self.answers.last.split_once(r#""cursor":""#).and_then(|(_, rest)| rest.split_once('"'));
        let (cursor, _) = cursor.ok_or_else(|| io::Error::other("the answer to a publish has no cursor"))?;
        self.cursor = Some(cursor.to_owned());
        self.source.published = 0;
        self.source.pace = Pace::Until(missed);
        let all = |run: &Self| run.source.published >= missed && !run.publishers.iter().any(Publisher::waits);
        if !self.turn_until(deadline, all)? {
            return Err(io::Error::other(format!(
                "{} of {missed} events were published",
                self.source.published
            )));
        }
        self.source.pace = Pace::Stopped;
        Ok(())
    }

    fn come_back(&mut self, report: &mut Report) -> io::Result<()> {
        let usage = Usage::read(self.args.pid);
        let from = clock::now();
        self.open_doors()?;
        self.turn_until(from + seconds(PATIENCE), Self::complete)?;
        self.used(report, &usage, from, self.delivered(), 0);
        report.memory_connected_kib = proc::memory(self.args.pid);
        Ok(())
    }

    fn used(&self, report: &mut Report, before: &Usage, from: u64, delivered: u64, published: u64) {
        report.seconds = (clock::now() - from) as f64 / 1e9;
        let used = before.until(&Usage::read(self.args.pid));
        report.deliveries = delivered;
        report.deliveries_per_s = delivered as f64 / report.seconds;
        report.published_per_s = published as f64 / report.seconds;
        let each = |n: u64| (n > 0).then(|| used.server * 1e6 / n as f64);
        report.cpu_us_per_delivery = each(delivered);
        report.cpu_us_per_publish = each(published);
        report.server_cpu = used.server / report.seconds;
        report.load_cpu = used.own / report.seconds;
        report.foreign_cpu = used.foreign / report.seconds;
    }

    fn finish(&mut self, report: &mut Report) -> io::Result<()> {
        for helper in &mut self.helpers {
            helper.finish()?;
        }
        self.turn_until(clock::now() + seconds(10.0), |run| {
            run.helpers.iter().all(|helper| helper.finished.is_some())
        })?;
        let mut counts = Counts::default();
        counts += &self.crowd.tally.counts;
        for (others, latency) in self.helpers.iter().filter_map(|helper| helper.finished.as_ref()) {
            counts += others;
            self.crowd.tally.latency.add(latency);
        }
        report.due = self.source.due;
        report.lost = self.source.due.saturating_sub(counts.delivered);
        report.refused = self.answers.refused;
        report.counts = counts;
        report.latency_us = Quantiles::from(&self.crowd.tally.latency);
        report.receipt_us = Quantiles::from(&self.receipts);
        self.crowd.leave(self.poll.registry());
        Ok(())
    }

    fn open(&self) -> usize {
        self.crowd.open() + self.helpers.iter().map(|helper| helper.open).sum::<usize>()
    }

    fn delivered(&self) -> u64 {
        self.crowd.tally.counts.delivered + self.helpers.iter().map(|helper| helper.delivered).sum::<u64>()
    }

    /// All that was due has arrived, and all that was published was answered.
    fn complete(&self) -> bool {
        !self.source.queued()
            && self.delivered() >= self.source.due
            && !self.publishers.iter().any(Publisher::waits)
    }

    /// False if the deadline came first.
    fn turn_until(&mut self, deadline: u64, done: impl Fn(&Self) -> bool) -> io::Result<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            if clock::now() >= deadline {
                return Ok(false);
            }
            self.turn(deadline)?;
        }
    }

    fn turn(&mut self, deadline: u64) -> io::Result<()> {
        if self.doors {
            self.crowd.fill(self.args, &self.plan, self.cursor.as_deref(), self.poll.registry())?;
        }
        self.hear_answers()?;
        let next = self.publish()?;
        self.wake_at(next.unwrap_or(u64::MAX).min(deadline))?;
        poll(&mut self.poll, &mut self.events, None)?;
        for event in &self.events {
            match event.token() {
                TIMER | PUBLISHERS => {}
                token if token.0 >= HELPERS => self.helpers[token.0 - HELPERS].on_news()?,
                _ => self.crowd.on(event, self.poll.registry(), self.args.size),
            }
        }
        Ok(())
    }

    fn hear_answers(&mut self) -> io::Result<()> {
        if self.publishers.is_empty() {
            return Ok(());
        }
        poll(&mut self.publisher_poll, &mut self.publisher_events, Some(Duration::ZERO))?;
        for event in &self.publisher_events {
            let registry = self.publisher_poll.registry();
            let publisher = &mut self.publishers[event.token().0];
            publisher.on(event, self.args, registry, &mut self.receipts, &mut self.answers)?;
        }
        Ok(())
    }

    /// Publishes what is due and can be, and says when the next is due.
    fn publish(&mut self) -> io::Result<Option<u64>> {
        let now = clock::now();
        let next = self.source.schedule(now, self.args);
        let delivered = self.delivered();
        for number in 0..self.publishers.len() {
            while self.publishers[number].free(self.args)
                && let Some((channel, at)) =
                    self.source.next(number as u32, now, delivered, self.args, &self.plan)
            {
                let body = self.source.body(channel, at, self.args.batch, self.args, &self.plan);
                self.publishers[number].publish(channel, &body, self.args)?;
            }
        }
        Ok(next)
    }

    /// By a timer of its own: the one of epoll_wait counts milliseconds, and is late by up to one.
    fn wake_at(&mut self, at: u64) -> io::Result<()> {
        if self.armed != at {
            let value =
                Timespec { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as i64 };
            let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
            self.armed = at;
        }
        Ok(())
    }
}

fn poll(poll: &mut Poll, events: &mut Events, patience: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, patience) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        done => done,
    }
}
