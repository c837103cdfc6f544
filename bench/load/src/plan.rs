//! Who follows what.

use crate::args::{Args, Follow};

pub struct Plan {
    follow: Follow,
    channels: u32,
    /// Zipf: the share of the first n + 1 channels in all choices.
    cumulative: Vec<f64>,
    /// Per channel.
    followers: Vec<u32>,
}

impl Plan {
    pub fn new(args: &Args) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=args.channels).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        let mut plan = Self {
            follow: args.follow,
            channels: args.channels,
            cumulative: cumulative.collect(),
            followers: vec![0; args.channels as usize],
        };
        let mut followers = std::mem::take(&mut plan.followers);
        for client in 0..args.clients {
            for channel in plan.channels_of(client) {
                followers[channel as usize] += 1;
            }
        }
        plan.followers = followers;
        plan
    }

    /// The same for a client in all processes, ascending and distinct.
    pub fn channels_of(&self, client: u32) -> Vec<u32> {
        match self.follow {
            Follow::One => vec![client % self.channels],
            Follow::All => (0..self.channels).collect(),
            Follow::Zipf(count) => {
                let mut random = fastrand::Rng::with_seed(u64::from(client));
                let total = self.cumulative.last().copied().unwrap_or_default();
                let mut chosen = std::collections::BTreeSet::new();
                while chosen.len() < count.min(self.channels) as usize {
                    let at = random.f64() * total;
                    chosen.insert(self.cumulative.partition_point(|sum| *sum <= at) as u32);
                }
                chosen.into_iter().collect()
            }
        }
    }

    pub fn followers(&self, channel: u32) -> u64 {
        self.followers.get(channel as usize).copied().unwrap_or_default().into()
    }

    /// Clients that one publish reaches, on the average of the channels.
    pub fn mean_followers(&self) -> f64 {
        self.followers.iter().map(|n| f64::from(*n)).sum::<f64>() / f64::from(self.channels)
    }
}
