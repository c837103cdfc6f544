//! Where small events of one channel stand first, and how they come to their channels.
//!
//! Each channel has pages of its own, so that what a client missed lies together. To write one for each event would be most of
//! what a commit costs among many channels; for some hundred events together it is little.

use rusqlite::Connection;

use super::pass::Pass;
use crate::cursor::Seq;

/// How many wait before they are moved with the commit that brings the last. Whoever reads looks through all of them.
const MOST: u64 = 1024;

/// What waits to be moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    events: u64,
    /// The oldest of them.
    first: Option<Seq>,
}

impl Recent {
    pub(super) fn find(connection: &Connection) -> rusqlite::Result<Self> {
        connection.query_row("SELECT count(*), min(seq) FROM recent", [], |row| {
            Ok(Self { events: row.get(0)?, first: row.get(1)? })
        })
    }

    pub(super) fn count(&mut self, seq: Seq) {
        self.events += 1;
        self.first.get_or_insert(seq);
    }

    pub(super) fn is_empty(self) -> bool {
        self.events == 0
    }

    pub(super) fn is_full(self) -> bool {
        self.events >= MOST
    }

    /// Whether one of them stands before this position, or anything waits if there is none.
    pub(super) fn reaches_below(self, seq: Option<Seq>) -> bool {
        self.first.is_some_and(|first| seq.is_none_or(|seq| first < seq))
    }
}

impl Pass<'_> {
    /// Moves all that waits to where it belongs.
    pub(super) fn settle(&mut self) -> rusqlite::Result<()> {
        if self.figures.recent.is_empty() {
            return Ok(());
        }
        for step in [
            "INSERT INTO placements SELECT home, seq, prev, time, id, name, attributes, is_json, payload FROM recent
                ORDER BY home, seq",
            "INSERT INTO events (seq, prev, channels, left, weight, time, home)
                SELECT seq, prev, channels, 1, weight, time, home FROM recent ORDER BY seq",
            "DELETE FROM recent",
        ] {
            self.transaction.prepare_cached(step)?.execute([])?;
        }
        self.figures.recent = Recent::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::database::{Batch, Database};
    use super::super::{reader, schema};
    use super::*;
    use crate::actors::log::index::Numbering;
    use crate::actors::log::{Outcome, Page, PageLimit, ReadAfter, Seek, Trim};
    use crate::channel::{Channel, Selector};
    use crate::event::Event;
    use crate::identity::{Publisher, SessionId};
    use crate::interest::{Filter, Interest, Subscription};
    use crate::record::Draft;
    use crate::retention::Retention;

    const CHANNELS: [&str; 5] = ["a", "a/few", "a/light", "b", "c"];
    const INTERESTS: [&[&str]; 6] = [&["a"], &["a/few", "c"], &["a/**"], &["**"], &["b", "*"], &["nobody"]];

    /// What is done to a file.
    #[derive(Debug, Clone)]
    enum Deed {
        Publish(Vec<Draft>),
        Forget(usize),
        Clean,
        Restart,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let channels = prop_oneof![
            5 => (0..CHANNELS.len()).prop_map(|one| vec![one]),
            1 => proptest::sample::subsequence((0..CHANNELS.len()).collect::<Vec<_>>(), 2..4),
        ];
        let size = prop_oneof![5 => 0..80_usize, 1 => 1000..1100_usize];
        let draft = (channels, size, any::<bool>())
            .prop_map(|(channels, size, is_rich)| draft(&channels, size, is_rich));
        prop_oneof![
            8 => proptest::collection::vec(draft, 1..6).prop_map(Deed::Publish),
            1 => (0..CHANNELS.len()).prop_map(Deed::Forget),
            1 => Just(Deed::Clean),
            1 => Just(Deed::Restart),
        ]
    }

    fn draft(channels: &[usize], size: usize, is_rich: bool) -> Draft {
        let channels = channels.iter().map(|&at| Channel::new(CHANNELS[at]).expect("valid")).collect();
        let event = if is_rich {
            let event = Event::json("named", &"y".repeat(size)).expect("valid");
            event.attribute("key", "value").expect("valid")
        } else {
            Event::text("message", "y".repeat(size)).expect("valid")
        };
        Draft::new(event, channels, Publisher::HUB, size as u64)
    }

    fn retention() -> Retention {
        let rules = ["a/few=limits:max_events=3", "a/light=limits:max_bytes=1500"];
        let rules = rules.map(|rule| rule.parse().expect("valid"));
        rules.into_iter().fold(Retention::default().max_log_bytes(3_000), Retention::rule)
    }

    struct File {
        database: Option<Database>,
        /// Whether everything is moved at once, after each deed.
        moves_at_once: bool,
    }

    impl File {
        fn new(moves_at_once: bool) -> Self {
            let mut connection = Connection::open_in_memory().expect("a file");
            schema::migrate(&mut connection).expect("tables");
            let database = Database::new(connection, retention()).expect("a log");
            Self { database: Some(database), moves_at_once }
        }

        fn database(&mut self) -> &mut Database {
            self.database.as_mut().expect("it is open")
        }

        fn do_one(&mut self, deed: &Deed) -> (Vec<Outcome>, Vec<Trim>) {
            let done = match deed {
                Deed::Publish(drafts) => {
                    let drafts = drafts.clone();
                    let batch = Batch { drafts, numbering: Numbering::Next, now: 1, through: None };
                    let appended = self.database().append(vec![batch]).expect("appended");
                    let appended = appended.into_iter().next().expect("one");
                    (appended.outcomes, appended.trims)
                }
                Deed::Forget(at) => {
                    let channel = Channel::new(CHANNELS[*at]).expect("valid");
                    (Vec::new(), self.database().forget(&channel).expect("forgotten").0)
                }
                Deed::Clean => (Vec::new(), self.database().clean(2).expect("cleaned").unwrap_or_default()),
                Deed::Restart => {
                    let connection = self.database.take().expect("it is open").into_connection();
                    self.database = Some(Database::new(connection, retention()).expect("a log"));
                    (Vec::new(), Vec::new())
                }
            };
            if self.moves_at_once {
                self.database().settle().expect("moved");
            }
            done
        }

        fn waiting(&mut self) -> u64 {
            Recent::find(self.database().connection()).expect("readable").events
        }

        fn page(&mut self, interest: &Interest, after: Seq, until: Seq) -> (String, Seq, Option<Seq>) {
            let limit = PageLimit { events: 7, bytes: usize::MAX };
            let query = ReadAfter { after, until, interest: interest.clone(), limit };
            let Page { records, through, trimmed } =
                reader::page(self.database().connection(), &query).expect("readable");
            (format!("{records:?}"), through, trimmed)
        }

        fn seek(&mut self, interest: &Interest, last: u64, until: Seq) -> (Seq, u64) {
            let query = Seek { last, until, interest: interest.clone() };
            let sought = reader::seek(self.database().connection(), &query).expect("readable");
            (sought.position, sought.left)
        }
    }

    fn sorted(mut trims: Vec<Trim>) -> Vec<(Channel, Seq)> {
        trims.sort_by_key(|trim| trim.channel.clone());
        trims.into_iter().map(|Trim { channel, through }| (channel, through)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whoever reads or removes cannot tell where an event stands.
        #[test]
        fn nobody_can_tell_what_waits(deeds in proptest::collection::vec(deed(), 1..40)) {
            let (mut waits, mut moves) = (File::new(false), File::new(true));
            let interests = INTERESTS.map(|selectors| {
                let selectors = selectors.iter().map(|text| Selector::new(text).expect("valid"));
                let all = Filter::parse(std::iter::empty::<&str>()).expect("valid");
                Interest::new(SessionId::mint(), Subscription::new(selectors, all))
            });
            for deed in &deeds {
                let (outcomes, trims) = waits.do_one(deed);
                let (others, other_trims) = moves.do_one(deed);
                prop_assert_eq!(outcomes, others);
                prop_assert_eq!(sorted(trims), sorted(other_trims));
                prop_assert_eq!(moves.waiting(), 0);
                let head = waits.database().head();
                for interest in &interests {
                    for (after, until) in [(0, head), (head / 2, head), (head / 3, head / 2), (head.saturating_sub(3), head)] {
                        prop_assert_eq!(waits.page(interest, after, until), moves.page(interest, after, until));
                    }
                    for last in [1, 4] {
                        prop_assert_eq!(waits.seek(interest, last, head), moves.seek(interest, last, head));
                    }
                }
            }
        }
    }

    #[test]
    fn many_are_moved_together_and_none_waits_after_a_restart() {
        let mut connection = Connection::open_in_memory().expect("a file");
        schema::migrate(&mut connection).expect("tables");
        let database = Database::new(connection, Retention::default()).expect("a log");
        let mut file = File { database: Some(database), moves_at_once: false };
        let publish = Deed::Publish(vec![draft(&[0], 10, false)]);
        for _ in 1..MOST {
            file.do_one(&publish);
        }
        assert_eq!(file.waiting(), MOST - 1);
        file.do_one(&publish);
        assert_eq!(file.waiting(), 0);
        file.do_one(&publish);
        assert_eq!(file.waiting(), 1);
        let connection = file.database.take().expect("it is open").into_connection();
        file.database = Some(Database::new(connection, Retention::default()).expect("a log"));
        assert_eq!(file.waiting(), 0);
    }
}
