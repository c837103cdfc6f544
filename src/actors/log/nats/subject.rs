//! Under which subject a batch is published: its first channel's name, written so that it can be read back. Pure.

use std::fmt::Write;

use crate::channel::Channel;

/// What stands for a batch whose first event is for nobody: an escape that no name has.
const NOBODY: &str = "=";

/// Where bindings are changed: an escape that no name has, either.
const CHANGES: &str = "=bindings";

/// The subjects of a log's stream.
pub(super) fn all(stream: &str) -> String {
    format!("{stream}.ev.>")
}

/// The subject of what changes bindings, with the events that come with it.
pub(super) fn changes(stream: &str) -> String {
    format!("{stream}.ev.{CHANGES}")
}

/// The subject of ephemeral events, beside the stream.
pub(super) fn live(stream: &str) -> String {
    format!("{stream}.live")
}

/// The subject on which nodes say that they are there.
pub(super) fn here(stream: &str) -> String {
    format!("{stream}.here")
}

/// The subject on which nodes are asked who follows a channel there.
pub(super) fn who(stream: &str) -> String {
    format!("{stream}.who")
}

/// The subject of a batch by its first channel.
///
/// Segments are tokens, so that subscriptions by NATS' own wildcards find the same channels. Each byte that is not a
/// letter, a digit, `-` or `_` is `=` and two hexadecimal digits: names that differ stay different, and 255 bytes are
/// 765 at most, which is far below the 4,096 that a server takes.
pub(super) fn of(stream: &str, channel: Option<&Channel>) -> String {
    let mut subject = format!("{stream}.ev.");
    let Some(channel) = channel else { return subject + NOBODY };
    for byte in channel.as_str().bytes() {
        match byte {
            b'/' => subject.push('.'),
            b'-' | b'_' => subject.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => subject.push(char::from(byte)),
            byte => drop(write!(subject, "={byte:02X}")),
        }
    }
    subject
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a subject back.
    fn channel(subject: &str) -> String {
        let name = subject.strip_prefix("log.ev.").expect("of the log").replace('.', "/");
        let mut bytes = Vec::new();
        let mut rest = name.as_bytes();
        while let [first, others @ ..] = rest {
            if *first == b'=' {
                let digits = std::str::from_utf8(&others[..2]).expect("digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                rest = &others[2..];
            } else {
                bytes.push(*first);
                rest = others;
            }
        }
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn names_that_differ_stay_different() {
        let of = |name: &str| of("log", Some(&Channel::restore(name)));
        assert_eq!(of("orders/7"), "log.ev.orders.7");
        assert_eq!(of("a.b"), "log.ev.a=2Eb");
        assert_eq!(of("a_b"), "log.ev.a_b");
        assert_eq!(of("a=2Eb"), "log.ev.a=3D2Eb");
        assert_eq!(of("$everyone"), "log.ev.=24everyone");
        assert_eq!(of("a b/>*x/ü"), "log.ev.a=20b.=3E=2Ax.=C3=BC");
        assert_eq!(super::of("log", None), "log.ev.=");
    }

    proptest! {
        #[test]
        fn every_name_reads_back(segments in proptest::collection::vec("[^/\\p{Cc}]{1,20}", 1..6)) {
            let name = segments.join("/");
            let subject = of("log", Some(&Channel::restore(&name)));
            prop_assert_eq!(&channel(&subject), &name);
            prop_assert!(subject.len() <= "log.ev.".len() + 3 * name.len());
            let is_token = |token: &str| {
                !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b))
            };
            prop_assert!(subject.split('.').all(is_token));
        }
    }
}
