//! Who is connected, and who publishes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::error::InvalidValue;

macro_rules! ulid_newtype {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            // Two halves, high before low: as one number they would have all that holds an id padded to 16 bytes.
            high: u64,
            low: u64,
        }

        impl $name {
            /// A new one, of this moment and 80 random bits.
            #[must_use]
            pub fn mint() -> Self {
                Self::of(Ulid::generate())
            }

            fn of(ulid: Ulid) -> Self {
                let (high, low) = ulid.into();
                Self { high, low }
            }

            fn ulid(self) -> Ulid {
                (self.high, self.low).into()
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                // 26 digits of five bits are two bits more than there are: the first is at most 7.
                let fits = text.as_bytes().first().is_some_and(|first| (b'0'..=b'7').contains(first));
                let ulid = Ulid::from_string(text).ok().filter(|_| fits);
                ulid.map(Self::of).ok_or_else(|| InvalidValue::new($field, "must be a ULID"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.ulid().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

ulid_newtype! {
    /// A login or a browser: it owns any number of clients, and has an inbox that reaches them all.
    ///
    /// A session id is an address, not a secret; knowing it must never be what lets somebody in.
    SessionId, "session"
}

ulid_newtype! {
    /// One connection.
    ClientId, "client"
}

impl SessionId {
    /// The session that belongs to a secret (a cookie's value, a token's subject): always the same for the same
    /// secret, and the secret cannot be found from it.
    #[must_use]
    pub fn derived_from(secret: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(b"fanfare session\0").chain_update(secret).finalize();
        // A digest has 32 bytes.
        Self::of(Ulid::from_bytes(digest.as_slice().first_chunk().copied().unwrap_or_default()))
    }
}

impl ClientId {
    /// When it was minted, which is when the client connected.
    pub(crate) fn minted_at(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.ulid().timestamp_ms())
    }

    /// Spreads clients evenly over `slots`, the same way each time.
    pub(crate) fn slot(self, slots: u32) -> u32 {
        // The low half of a ULID is random.
        (self.low % u64::from(slots.max(1))) as u32
    }
}

/// Who published an event: the other half of its identity, since an [`EventId`](crate::EventId) is unique only per
/// publisher.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Publisher(Option<Arc<str>>);

impl Publisher {
    /// The hub itself, and every service in its process.
    pub const HUB: Self = Self(None);

    /// A publisher of its own name, such as a token's subject.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self(Some(name.into()))
    }

    /// Its name; the hub has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_session_is_stable_and_distinct() {
        assert_eq!(SessionId::derived_from(b"x"), SessionId::derived_from(b"x"));
        assert_ne!(SessionId::derived_from(b"x"), SessionId::derived_from(b"y"));
        let id = SessionId::derived_from(b"x");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 26);
    }

    #[test]
    fn clients_spread_over_slots() {
        let mut seen = [0; 8];
        for _ in 0..800 {
            seen[ClientId::mint().slot(8) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 40), "{seen:?}");
    }
}
