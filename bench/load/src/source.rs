//! What is published, and when.

use std::collections::VecDeque;

use crate::args::Args;
use crate::plan::Plan;
use crate::stamp::Stamp;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    Stopped,
    /// Events a second since a moment.
    Rate {
        since: u64,
        per_second: f64,
    },
    /// As long as no more deliveries than this are due.
    Window(f64),
    /// Until so many events were published.
    Until(u64),
}

pub struct Source {
    pub pace: Pace,
    /// Of the channels, how many events each had.
    numbers: Vec<u32>,
    /// At a rate: what the publishers have not come to.
    queues: Vec<VecDeque<(u32, u64)>>,
    scheduled: u64,
    /// Of the publishers, how often each had its turn.
    turns: Vec<u32>,
    pub published: u64,
    /// Deliveries that this leads to.
    pub due: u64,
    random: fastrand::Rng,
}

impl Source {
    pub fn new(args: &Args) -> Self {
        Self {
            pace: Pace::Stopped,
            // One more, that nobody follows.
            numbers: vec![0; args.channels as usize + 1],
            queues: vec![VecDeque::new(); args.publishers as usize],
            scheduled: 0,
            turns: vec![0; args.publishers as usize],
            published: 0,
            due: 0,
            random: fastrand::Rng::with_seed(1),
        }
    }

    /// At a rate: puts down what is due by now, and says when the next is.
    pub fn schedule(&mut self, now: u64, args: &Args) -> Option<u64> {
        let Pace::Rate { since, per_second } = self.pace else { return None };
        loop {
            let at = since + (self.scheduled as f64 * 1e9 / per_second) as u64;
            if at > now {
                return Some(at);
            }
            let channel = self.random.u32(..args.channels);
            self.queues[(channel % args.publishers) as usize].push_back((channel, at));
            self.scheduled += u64::from(args.batch);
        }
    }

    /// What the publisher of this number, which is free, has to publish now: a channel, and when it was due.
    pub fn next(
        &mut self,
        publisher: u32,
        now: u64,
        delivered: u64,
        args: &Args,
        plan: &Plan,
    ) -> Option<(u32, u64)> {
        if let Some(next) = self.queues[publisher as usize].pop_front() {
            return Some(next);
        }
        let own = args.channels.saturating_sub(publisher).div_ceil(args.publishers);
        if own == 0 {
            return None;
        }
        let channel = match self.pace {
            Pace::Stopped | Pace::Rate { .. } => return None,
            Pace::Until(events) if self.published >= events => return None,
            // In turns, so that each has the same.
            Pace::Until(_) => {
                let turn = &mut self.turns[publisher as usize];
                *turn += 1;
                publisher + args.publishers * ((*turn - 1) % own)
            }
            Pace::Window(limit) => {
                let channel = publisher + args.publishers * self.random.u32(..own);
                let outstanding = self.due.saturating_sub(delivered);
                let more = plan.followers(channel) * u64::from(args.batch);
                if outstanding > 0 && (outstanding + more) as f64 > limit {
                    return None;
                }
                channel
            }
        };
        Some((channel, now))
    }

    pub fn queued(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// The body of a publish of so many events.
    pub fn body(&mut self, channel: u32, at: u64, batch: u32, args: &Args, plan: &Plan) -> Vec<u8> {
        let template = args.body.replace("{channel}", &channel.to_string());
        let (before, after) = template.split_once("{payload}").unwrap_or((&template, ""));
        let mut body = Vec::with_capacity((template.len() + args.size) * batch as usize + 2);
        if args.batch > 1 {
            body.push(b'[');
        }
        for n in 0..batch {
            if n > 0 {
                body.push(b',');
            }
            let number = &mut self.numbers[channel as usize];
            *number += 1;
            body.extend_from_slice(before.as_bytes());
            Stamp { at, number: *number, channel }.write(args.size, &mut body);
            body.extend_from_slice(after.as_bytes());
        }
        if args.batch > 1 {
            body.push(b']');
        }
        self.published += u64::from(batch);
        self.due += plan.followers(channel) * u64::from(batch);
        body
    }
}
