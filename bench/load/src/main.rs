//! Opens streams to a server, publishes, checks every delivery, and reads what the server used for it.

mod args;
mod client;
mod clock;
mod crowd;
mod helper;
mod plan;
mod proc;
mod publisher;
mod report;
mod run;
mod socket;
mod source;
mod sse;
mod stamp;
mod tally;
mod websocket;

use clap::Parser;

fn main() -> std::io::Result<()> {
    let args = args::Args::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    if let Some(number) = args.helper {
        return helper::run(&args, number);
    }
    println!("{}", serde_json::to_string(&run::run(&args)?)?);
    Ok(())
}
