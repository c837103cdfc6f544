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
use fanfare::http::Origin;
use fanfare::{Durability, Rule};

use crate::access::KeyText;

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

    /// A certificate in PEM, with those that vouch for it behind it: the hub then speaks HTTPS, with HTTP/2, and nothing
    /// else, also on --admin-listen. Read at the start, with its key (--tls-key).
    #[arg(long, env = "FANFARE_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM.
    #[arg(long, env = "FANFARE_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The log: a file, or `memory` for one that goes with the process.
    #[arg(long, env = "FANFARE_LOG", value_name = "PATH|memory", default_value = "fanfare.db")]
    pub(crate) log: LogKind,

    /// The NATS servers that give events their order, for several hubs that are one: URLs, joined by commas. The log is
    /// then what this hub keeps of it for its clients.
    #[arg(long, env = "FANFARE_NATS", value_name = "URL", hide_env_values = true)]
    pub(crate) nats: Option<String>,

    /// The JetStream stream that is the order, the same for all these hubs; made if it is not there.
    #[arg(long, env = "FANFARE_NATS_STREAM", value_name = "NAME", default_value = "fanfare")]
    pub(crate) nats_stream: String,

    /// In how many copies the stream is, each on another NATS server: it is made with so many (1 if this is not given), and
    /// one that is there with another number is refused.
    #[arg(long, env = "FANFARE_NATS_REPLICAS", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) nats_replicas: Option<u8>,

    /// What an acknowledged event survives: a crash of the `process`, or with `full` a power cut too.
    #[arg(long, env = "FANFARE_DURABILITY", value_name = "process|full", default_value = "process", value_parser = durability)]
    pub(crate) durability: Durability,

    /// How long events are kept: `SELECTOR=none`, `SELECTOR=limits:max_age=24h,max_events=1000,max_bytes=64MiB` or
    /// `SELECTOR=interest:grace=30s`. Repeat; the first that matches counts. Without a match: 24h, and 1 GiB in all.
    #[arg(long, env = "FANFARE_RETENTION", value_name = "RULE")]
    pub(crate) retention: Vec<Rule>,

    /// A collector of OpenTelemetry's (OTLP over HTTP, without TLS: `http://127.0.0.1:4318`), which is sent the way of each
    /// publish as spans.
    #[cfg(feature = "otel")]
    #[arg(long, env = "FANFARE_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,

    /// A TOML file with settings; its keys are the flags with `_` for `-`.
    #[arg(long, env = "FANFARE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How often a stream shows that it is alive.
    #[arg(long, env = "FANFARE_HEARTBEAT", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) heartbeat: Duration,

    /// How long the hub may take to go away when it is told to by SIGTERM; by SIGINT 2s at most. A second signal ends it
    /// at once.
    #[arg(long, env = "FANFARE_DRAIN", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) drain: Duration,

    /// Clients that may be connected; 0 for as many as come, here and below. Streams beyond a limit are told to come
    /// back later.
    #[arg(long, env = "FANFARE_MAX_CONNECTIONS", value_name = "N", default_value = "100000")]
    pub(crate) max_connections: usize,

    /// Clients that a session may have.
    #[arg(long, env = "FANFARE_MAX_CONNECTIONS_PER_SESSION", value_name = "N", default_value = "32")]
    pub(crate) max_connections_per_session: usize,

    /// Clients that may come from one address (a network of 64 bits in version 6). Behind a proxy see
    /// --trusted-proxies.
    #[arg(long, env = "FANFARE_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value = "0")]
    pub(crate) max_connections_per_address: usize,

    /// How old a connection may become; then it is told to come back, at a moment of its own in the last fifth of this.
    /// 0s for any age.
    #[arg(long, env = "FANFARE_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) max_connection_age: Duration,

    /// New streams a second.
    #[arg(long, env = "FANFARE_CONNECT_RATE", value_name = "N", default_value = "0")]
    pub(crate) connect_rate: u32,

    /// Events a second of each publisher; those beyond are answered 429.
    #[arg(long, env = "FANFARE_PUBLISH_RATE", value_name = "N", default_value = "0")]
    pub(crate) publish_rate: u32,

    /// Proxies in front, each of which adds to `X-Forwarded-For` whom it has a request from. None is believed by
    /// default.
    #[arg(long, env = "FANFARE_TRUSTED_PROXIES", value_name = "N", default_value = "0")]
    pub(crate) trusted_proxies: usize,

    /// Selectors that a client may follow.
    #[arg(long, env = "FANFARE_MAX_SELECTORS", value_name = "N", default_value = "128")]
    pub(crate) max_selectors: usize,

    /// The largest payload of an event.
    #[arg(long, env = "FANFARE_MAX_PAYLOAD", value_name = "SIZE", default_value = "256KiB", value_parser = size)]
    pub(crate) max_payload: usize,

    /// The largest body of a publish.
    #[arg(long, env = "FANFARE_MAX_BODY", value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub(crate) max_body: usize,

    /// A key that tokens are signed by: `ALG:SECRET` or `ALG:@FILE`, with HS256 and a secret of at least 32 bytes, or
    /// RS256, ES256, `EdDSA` and a public key in PEM. Repeat for more. In a file the secret is safe from `ps`. With a key,
    /// nobody is served without a token.
    #[arg(long, env = "FANFARE_JWT_KEY", value_name = "ALG:SECRET|ALG:@FILE", hide_env_values = true)]
    pub(crate) jwt_key: Vec<KeyText>,

    /// A file with a JWK set, whose keys tokens may be signed by too. Read at the start.
    #[arg(long, env = "FANFARE_JWKS", value_name = "FILE")]
    pub(crate) jwks: Option<PathBuf>,

    /// Takes tokens from the query too, as `access_token`. Proxies write queries to their logs.
    #[arg(long, env = "FANFARE_TOKEN_IN_QUERY", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) token_in_query: bool,

    /// Pages of this origin may publish and read the answers (CORS): `https://app.example`, as browsers write it. Repeat
    /// for more, or join them with commas.
    #[arg(long, env = "FANFARE_ALLOW_ORIGIN", value_name = "URL", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<Origin>,

    /// An address of its own for `/healthz`, `/readyz`, `/metrics` and the admin endpoints (`/status`, `/sessions`,
    /// `/clients`): the public one answers 404 for them then.
    #[arg(long, env = "FANFARE_ADMIN_LISTEN", value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,

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

    /// Whether tokens say who may do what.
    pub(crate) fn has_keys(&self) -> bool {
        !self.jwt_key.is_empty() || self.jwks.is_some()
    }

    /// Whether others than anonymous clients of this machine may be served.
    pub(crate) fn is_guarded(&self) -> bool {
        self.has_keys() || self.insecure
    }

    fn check(&self) -> Result<(), clap::Error> {
        let addresses = [("--listen", Some(self.listen)), ("--admin-listen", self.admin_listen)];
        for (flag, address) in addresses {
            if let Some(address) = address.filter(|address| !self.is_guarded() && !address.ip().is_loopback())
            {
                return Err(wrong(&format!(
                    "{flag} {address}: without a key (--jwt-key, --jwks) the hub serves anonymous clients, on a \
                     loopback address only; --insecure serves them on any"
                )));
            }
        }
        if self.admin_listen.is_some_and(|address| address == self.listen && address.port() != 0) {
            return Err(wrong("--admin-listen must be another address than --listen"));
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(wrong("--tls-cert and --tls-key belong together: name both or neither"));
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
    // Not with the line itself, as the error would show it: it may hold a secret.
    let at_fault = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        fail(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
    };
    let table: toml::Table = text.parse().map_err(at_fault)?;
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
        assert_eq!((settings.nats, settings.nats_stream.as_str()), (None, "fanfare"));
        assert_eq!((settings.max_payload, settings.max_body), (256 << 10, 1 << 20));
        assert_eq!(read(&["serve"]).expect("defaults").heartbeat, Duration::from_secs(15));
    }

    #[test]
    fn a_flag_wins_over_the_file_and_that_over_the_default() {
        let text = "heartbeat = \"3s\"\nnats = \"nats://a,nats://b\"\nmax_selectors = 7\ninsecure = true\nretention = [\"a=none\", \"b=none\"]\n";
        let path = file("wins", text);
        let config = path.to_str().expect("text");
        for args in [vec!["--config", config], vec!["serve", "--config", config]] {
            let settings = read(&[args.clone(), vec!["--heartbeat", "5s"]].concat()).expect("valid");
            assert_eq!((settings.heartbeat, settings.max_selectors), (Duration::from_secs(5), 7));
            assert!(settings.insecure && settings.retention.len() == 2);
            assert_eq!(settings.nats.as_deref(), Some("nats://a,nats://b"));
            assert_eq!(read(&args).expect("valid").heartbeat, Duration::from_secs(3));
        }
    }

    #[test]
    fn with_a_key_every_address_may_be_listened_on() {
        for args in [["--jwt-key", "HS256:@secret"], ["--jwks", "keys.json"]] {
            let settings = read(&[&["--listen", "0.0.0.0:80"], &args[..]].concat()).expect("valid");
            assert!(settings.has_keys() && !settings.insecure);
        }
        let path = file("keys", "jwt_key = [\"HS256:a,b\", \"RS256:@k.pem\"]\ntoken_in_query = true\n");
        let settings = read(&["--config", path.to_str().expect("text")]).expect("valid");
        assert_eq!((settings.jwt_key.len(), settings.token_in_query), (2, true));
        let both = read(&["--allow-origin", "https://a.example,https://b.example"]).expect("valid");
        assert_eq!(both.allow_origin.len(), 2);
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        let secret = "hunter2hunter2";
        for (name, text) in [
            ("unended", "jwt_key = [\"HS256:hunter2hunter2\n"),
            ("unquoted", "heartbeat = \"3s\"\njwt_key = HS256:hunter2hunter2\n"),
            ("twice", "jwt_key = \"HS256:hunter2hunter2\"\njwt_key = \"HS256:hunter2hunter2\"\n"),
            ("table", "jwt_key = { HS256 = \"hunter2hunter2\" }\n"),
        ] {
            let path = file(name, text);
            let error = read(&["--config", path.to_str().expect("text")]).expect_err(name).to_string();
            assert!(!error.contains(secret), "{name}: {error}");
        }
        for args in [
            vec!["--jwt-key=HS256:hunter2hunter2", "--heartbeat", "soon"],
            vec!["--jwtkey=HS256:hunter2hunter2"],
            vec!["--jwt-key=HS256:hunter2hunter2", "--help"],
        ] {
            let error = read(&args).expect_err("refused").to_string();
            assert!(!error.contains(secret), "{args:?}: {error}");
        }
        let settings = read(&["--jwt-key", "HS256:hunter2hunter2"]).expect("read");
        assert!(!format!("{settings:?}").contains(secret));
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
            (vec!["--admin-listen", "0.0.0.0:81"], "--admin-listen 0.0.0.0:81"),
            (vec!["--admin-listen", "127.0.0.1:8080"], "another address"),
            (vec!["--tls-cert", "cert.pem"], "--tls-key"),
            (vec!["--tls-key", "key.pem"], "--tls-cert"),
            (vec!["--allow-origin", "*"], "one by one"),
            (vec!["--allow-origin", "https://app.example/"], "allow-origin"),
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
