use std::net::SocketAddr;
use std::str::FromStr;

use clap::{Parser, ValueEnum};

/// Opens streams, publishes, checks every delivery, and prints one line of JSON. Of an argument that is given twice
/// the last counts.
#[derive(Clone, Debug, Parser)]
#[command(version, args_override_self = true)]
pub struct Args {
    /// Where the streams are.
    #[arg(long)]
    pub target: SocketAddr,
    /// Where to publish; as the target if not given.
    #[arg(long)]
    pub publish_target: Option<SocketAddr>,
    /// The process whose tree is the server.
    #[arg(long)]
    pub pid: i32,

    /// Path of a stream. `{channels}` is what it follows, `{client}` its number, `{cursor}` where to come back to.
    #[arg(long, default_value = "/sse/{channels}")]
    pub subscribe: String,
    /// How one followed channel is written; `{channel}` is its number.
    #[arg(long, default_value = "c{channel}")]
    pub each: String,
    /// What stands between two of them.
    #[arg(long, default_value = ",")]
    pub between: String,
    #[arg(long, default_value = "/pub/c{channel}")]
    pub publish: String,
    #[arg(long, default_value = "text/plain")]
    pub content_type: String,
    /// One event; `{payload}` and `{channel}` are put in.
    #[arg(long, default_value = "{payload}")]
    pub body: String,
    #[arg(long, value_enum, default_value_t = Over::Http)]
    pub over: Over,

    #[arg(long, default_value_t = 1000)]
    pub clients: u32,
    /// Processes that the clients are spread over: one may have as many descriptors as its limit says.
    #[arg(long, default_value_t = 1)]
    pub processes: u32,
    #[arg(long, default_value_t = 1)]
    pub channels: u32,
    /// `one` (client i follows channel i modulo their number), `all`, or `zipf:N` (N of its own choice).
    #[arg(long, default_value = "one")]
    pub follow: Follow,
    /// Clients that connect at the same time.
    #[arg(long, default_value_t = 128)]
    pub connecting: usize,

    /// Events a second, each stamped with the moment it was due. Without it: flat out.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Flat out: publishes that have not reached everybody yet. 0: a publish waits for its answer alone.
    #[arg(long, default_value_t = 8)]
    pub window: u64,
    /// Connections to publish by. A channel has always the same, so that its order is known.
    #[arg(long, default_value_t = 1)]
    pub publishers: u32,
    /// Publishes of one connection that have no answer yet.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Events in one publish, as a JSON array if more than one.
    #[arg(long, default_value_t = 1)]
    pub batch: u32,
    #[arg(long, default_value_t = 256)]
    pub size: usize,

    /// Publish so many events first, then let the clients come back to them, all at once.
    #[arg(long)]
    pub missed: Option<u64>,

    /// Seconds between the last client's arrival and the reading of the memory.
    #[arg(long, default_value_t = 1.0)]
    pub settle: f64,
    #[arg(long, default_value_t = 1.5)]
    pub warmup: f64,
    /// Seconds measured; 0: clients that are idle.
    #[arg(long, default_value_t = 6.0)]
    pub duration: f64,
    /// Seconds to wait for what was published and has not arrived.
    #[arg(long, default_value_t = 10.0)]
    pub drain: f64,

    /// This process is a helper with this share of the clients.
    #[arg(long, hide = true)]
    pub helper: Option<u32>,
    /// Where the clients of a helper come back to.
    #[arg(long, hide = true)]
    pub cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Over {
    Http,
    Ws,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    One,
    All,
    Zipf(u32),
}

impl FromStr for Follow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "one" => Ok(Self::One),
            None if text == "all" => Ok(Self::All),
            Some(("zipf", count)) => Ok(Self::Zipf(count.parse().map_err(|_| "zipf:N needs a number")?)),
            _ => Err("one, all or zipf:N".into()),
        }
    }
}

impl Args {
    pub fn publish_target(&self) -> SocketAddr {
        self.publish_target.unwrap_or(self.target)
    }

    /// The clients of share `n` of all processes.
    pub fn share(&self, n: u32) -> std::ops::Range<u32> {
        let at = |n: u32| (u64::from(self.clients) * u64::from(n) / u64::from(self.processes)) as u32;
        at(n)..at(n + 1)
    }
}
