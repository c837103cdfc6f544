//! The program's settings: flags, then `FANFARE_*` variables, then a TOML file, then defaults.
//!
//! Each setting is declared once, as a flag with its default. A value in the file takes the place of that default, so
//! flags and variables still win, and a key that no flag has is an error.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use fanfare::{Durability, Rule};

/// A realtime hub: publishes over HTTP, streams to browsers by Server-Sent Events.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: Settings,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serves the hub; what happens without a verb, too.
    Serve(Settings),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// The address to listen on.
    #[arg(long, env = "FANFARE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// The log: a file, or `memory` for one that goes with the process.
    #[arg(long, env = "FANFARE_LOG", value_name = "PATH|memory", default_value = "fanfare.db")]
    pub(crate) log: LogKind,

    /// What an acknowledged event survives: a crash of the `process`, or with `full` a power cut too.
    #[arg(long, env = "FANFARE_DURABILITY", value_name = "process|full", default_value = "process", value_parser = durability)]
    pub(crate) durability: Durability,

    /// How long events are kept: `SELECTOR=none`, `SELECTOR=limits:max_age=24h,max_events=1000,max_bytes=64MiB` or
    /// `SELECTOR=interest:grace=30s`. Repeat; the first that matches counts. Without a match: 24h, and 1 GiB in all.
    #[arg(long, env = "FANFARE_RETENTION", value_name = "RULE")]
    pub(crate) retention: Vec<Rule>,

    /// A TOML file with settings; its keys are the flags with `_` for `-`.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How often a stream shows that it is alive.
    #[arg(long, env = "FANFARE_HEARTBEAT", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) heartbeat: Duration,

    /// How long the hub may take to go away when it is told to.
    #[arg(long, env = "FANFARE_DRAIN", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) drain: Duration,

    /// Selectors that a client may follow.
    #[arg(long, env = "FANFARE_MAX_SELECTORS", value_name = "N", default_value = "128")]
    pub(crate) max_selectors: usize,

    /// The largest payload of an event.
    #[arg(long, env = "FANFARE_MAX_PAYLOAD", value_name = "SIZE", default_value = "256KiB", value_parser = size)]
    pub(crate) max_payload: usize,

    /// The largest body of a publish.
    #[arg(long, env = "FANFARE_MAX_BODY", value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) max_body: usize,

    /// Serves anonymous clients with every grant on an address that others can reach.
    #[arg(long, env = "FANFARE_INSECURE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogKind {
    Memory,
    File(PathBuf),
}

impl FromStr for LogKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("name a file, or memory".into()),
            "memory" => Ok(Self::Memory),
            path => Ok(Self::File(path.into())),
        }
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "process" => Ok(Durability::Process),
        "full" => Ok(Durability::Full),
        _ => Err("must be process or full".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 15s, 2m or 24h"))
}

fn size(text: &str) -> Result<usize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write it like 64KiB or 1GiB"))?;
    usize::try_from(size.as_u64()).map_err(|_| "too large".into())
}

impl Settings {
    /// Reads the settings of this process. Says what is wrong and ends the process when they cannot be read.
    pub(crate) fn of_process() -> Self {
        Self::read(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    fn read(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let settings = Self::parse(Cli::command(), args.clone())?;
        let settings = match &settings.config {
            None => settings,
            Some(path) => Self::parse(with_file(Cli::command(), path)?, args)?,
        };
        settings.check()?;
        Ok(settings)
    }

    fn parse(command: Command, args: Vec<OsString>) -> Result<Self, clap::Error> {
        let matches: ArgMatches = command.try_get_matches_from(args)?;
        let cli = Cli::from_arg_matches(&matches)?;
        Ok(match cli.verb {
            Some(Verb::Serve(settings)) => settings,
            None => cli.serve,
        })
    }

    fn check(&self) -> Result<(), clap::Error> {
        if !self.insecure && !self.listen.ip().is_loopback() {
            return Err(wrong(&format!(
                "--listen {}: without a key the hub serves anonymous clients, on a loopback address only; \
                 --insecure serves them on any",
                self.listen
            )));
        }
        Ok(())
    }
}

fn wrong(message: &str) -> clap::Error {
    Cli::command().error(clap::error::ErrorKind::ValueValidation, message)
}

/// The command with the values of a file as its defaults.
fn with_file(command: Command, path: &Path) -> Result<Command, clap::Error> {
    let fail = |why: String| wrong(&format!("--config {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
    let mut values = Vec::new();
    for (key, value) in table {
        let is_known = key != "config" && command.get_arguments().any(|arg| arg.get_id() == key.as_str());
        if !is_known {
            return Err(fail(format!("there is no setting `{key}`")));
        }
        values.push((
            key.clone(),
            texts(&value)
                .ok_or_else(|| fail(format!("`{key}` must be a string, a number, true or false")))?,
        ));
    }
    let apply = move |mut command: Command| {
        for (key, texts) in &values {
            let texts: Vec<_> = texts.iter().map(|text| clap::builder::OsStr::from(text.clone())).collect();
            command = command.mut_arg(key, |arg| arg.default_values(texts));
        }
        command
    };
    Ok(apply.clone()(command).mut_subcommand("serve", apply))
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    Some(match value {
        toml::Value::String(text) => vec![text.clone()],
        toml::Value::Integer(number) => vec![number.to_string()],
        toml::Value::Boolean(flag) => vec![flag.to_string()],
        toml::Value::Array(values) => values.iter().map(texts).collect::<Option<Vec<_>>>()?.concat(),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Settings, clap::Error> {
        Settings::read(std::iter::once("fanfare").chain(args.iter().copied()).map(OsString::from).collect())
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("fanfare-settings-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        path
    }

    #[test]
    fn every_setting_has_a_default() {
        let settings = read(&[]).expect("defaults");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.log, LogKind::File("fanfare.db".into()));
        assert_eq!((settings.max_payload, settings.max_body), (256 << 10, 1 << 20));
        assert_eq!(read(&["serve"]).expect("defaults").heartbeat, Duration::from_secs(15));
    }

    #[test]
    fn a_flag_wins_over_the_file_and_that_over_the_default() {
        let text =
            "heartbeat = \"3s\"\nmax_selectors = 7\ninsecure = true\nretention = [\"a=none\", \"b=none\"]\n";
        let path = file("wins", text);
        let config = path.to_str().expect("text");
        for args in [vec!["--config", config], vec!["serve", "--config", config]] {
            let settings = read(&[args.clone(), vec!["--heartbeat", "5s"]].concat()).expect("valid");
            assert_eq!((settings.heartbeat, settings.max_selectors), (Duration::from_secs(5), 7));
            assert!(settings.insecure && settings.retention.len() == 2);
            assert_eq!(read(&args).expect("valid").heartbeat, Duration::from_secs(3));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let unknown = file("unknown", "haertbeat = \"3s\"\n");
        let bad = file("bad", "max_payload = \"many\"\n");
        for (args, part) in [
            (vec!["--config", unknown.to_str().expect("text")], "haertbeat"),
            (vec!["--config", bad.to_str().expect("text")], "max-payload"),
            (vec!["--config", "/nonexistent/fanfare.toml"], "nonexistent"),
            (vec!["--listen", "0.0.0.0:80"], "--insecure"),
            (vec!["--heartbeat", "soon"], "heartbeat"),
            (vec!["--durability", "some"], "durability"),
            (vec!["--retention", "a=sometimes"], "retention"),
            (vec!["--unheard-of"], "unheard-of"),
        ] {
            let error = read(&args).expect_err("refused").to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
