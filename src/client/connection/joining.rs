//! A WebSocket before the server has taken the subscription on. Pure.
//!
//! The socket hears its session and everyone from its first moment, with cursors that know nothing of the subscription: to
//! go on from one of these would leave out what the subscription has missed. So what comes before `subscribed` waits for it;
//! cut before, the stream is where it was, and the server tells all of it again.

use super::Failure;
use crate::client::error::StreamError;
use crate::client::item::{Cause, Connected, Position};
use crate::client::read::ws::{Message, Said};
use crate::client::read::{Incoming, Word};

#[derive(Debug)]
pub(super) struct Joining {
    welcome: Option<Connected>,
    held: Vec<Incoming>,
    /// How many bytes more may be held.
    room: usize,
}

impl Joining {
    pub(super) fn new(room: usize) -> Self {
        Self { welcome: None, held: Vec::new(), room }
    }

    /// Takes a message of so many bytes; gives everything in its order once the subscription is taken on.
    pub(super) fn take(&mut self, message: Message, bytes: usize) -> Result<Option<Vec<Incoming>>, Failure> {
        let Message { position, retry, said } = message;
        match said {
            Said::Refused(problem) => return Err(Failure::refused(problem)),
            Said::Subscribed => return self.joined(position).map(Some),
            Said::Word(Word::Welcome(connected)) => self.welcome = Some(connected),
            Said::Word(word @ Word::Closing(_)) => {
                return Ok(Some(vec![Incoming { retry, word: Some(word), ..Incoming::default() }]));
            }
            Said::Word(word) => {
                self.room = self.room.checked_sub(bytes).ok_or_else(|| {
                    let what = "too much came before the subscription was taken on";
                    Failure::lost(Cause::Broken(what.into()))
                })?;
                self.held.push(Incoming { word: Some(word), ..Incoming::default() });
            }
            Said::Nothing => {}
        }
        Ok(None)
    }

    /// The greeting, and behind all that was held the position that knows of it. A position that is not said yet comes with
    /// the reset that follows.
    fn joined(&mut self, position: Option<Position>) -> Result<Vec<Incoming>, Failure> {
        let connected = self.welcome.take().ok_or_else(|| {
            StreamError::Malformed("the subscription was taken on before the welcome".into())
        })?;
        // No pause is named at the start, as it is in a stream of events: an older one is over.
        let retry = Some(std::time::Duration::ZERO);
        let welcome = Incoming { retry, word: Some(Word::Welcome(connected)), ..Incoming::default() };
        let mut all = vec![welcome];
        all.append(&mut self.held);
        for incoming in &mut all {
            incoming.place(None);
        }
        if let Some(last) = all.last_mut() {
            last.place(position);
        }
        Ok(all)
    }
}
