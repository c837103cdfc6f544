//! Where small events of one channel stand first, and how they come to their channels.
//!
//! Each channel has pages of its own, so that what a client missed lies together. To write one for each event, and the channel's
//! row, would be most of what a commit costs among many channels; for some hundred events together it is little. Until then the
//! events of a commit are one row of bytes, and what the file says of their channels is without them.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::pass::Pass;
use crate::actors::log::codec::{self, Rest};
use crate::actors::log::index::Lately;
use crate::cursor::Seq;
use crate::record::{Draft, Record};

/// How many wait before they are moved with the commit that brings the last, and in how many rows. Whoever reads looks through
/// the places of all of them.
const MOST: u64 = 1024;
const MOST_ROWS: u64 = 512;

/// What waits to be moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    pub(super) events: u64,
    rows: u64,
    /// Their weight.
    pub(super) bytes: u64,
    /// The oldest of them.
    first: Option<Seq>,
    /// The newest of them.
    pub(super) last: Option<Seq>,
}

impl Recent {
    fn count(&mut self, seq: Seq, weight: u64) {
        self.events += 1;
        self.bytes += weight;
        self.first.get_or_insert(seq);
        self.last = Some(seq);
    }

    pub(super) fn is_empty(self) -> bool {
        self.events == 0
    }

    pub(super) fn is_full(self) -> bool {
        self.events >= MOST || self.rows >= MOST_ROWS
    }

    /// Whether one of them stands before this position, or anything waits if there is none.
    pub(super) fn reaches_below(self, seq: Option<Seq>) -> bool {
        self.first.is_some_and(|first| seq.is_none_or(|seq| first < seq))
    }
}

/// Where a waiting event stands in its row, and in its channel. As bytes: the four, one after the other.
#[derive(Debug, Clone, Copy)]
struct Place {
    seq: Seq,
    /// The key of its channel.
    home: i64,
    prev: Seq,
    /// Where it begins among the bytes of the events.
    at: u32,
}

const PLACE_BYTES: usize = 28;

impl Place {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.home.to_le_bytes());
        out.extend_from_slice(&self.prev.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
    }

    fn read(rest: &mut Rest<'_>) -> Option<Self> {
        let (seq, home, prev) = (rest.long()?, rest.long()?, rest.long()?);
        Some(Self { seq, home: home.cast_signed(), prev, at: u32::try_from(rest.number()?).ok()? })
    }

    fn read_all(bytes: &[u8]) -> rusqlite::Result<Vec<Self>> {
        let places: Option<_> = bytes.chunks(PLACE_BYTES).map(|place| Self::read(&mut Rest(place))).collect();
        places.ok_or_else(damaged)
    }

    fn draft(self, events: &[u8], lately: &mut Lately) -> rusqlite::Result<Draft> {
        let bytes = usize::try_from(self.at).ok().and_then(|at| events.get(at..));
        let draft = bytes.and_then(|bytes| Rest(bytes).draft(lately)).ok_or_else(damaged)?;
        // Whose id it was matters to who may publish it again, which `ids` know.
        Ok(Draft { publisher: None, ..draft })
    }
}

fn damaged() -> rusqlite::Error {
    let why = "a row of events that wait for their places cannot be read";
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(why.into()))
}

/// The events of a commit that are to wait, on their way to a row.
#[derive(Default)]
pub(super) struct Waiting {
    first: Option<Seq>,
    places: Vec<u8>,
    events: Vec<u8>,
}

impl Pass<'_> {
    /// Lets an event wait for its place in its channel.
    pub(super) fn wait(&mut self, draft: &Draft, seq: Seq, home: i64, prev: Seq) {
        let Waiting { first, places, events } = &mut self.waiting;
        first.get_or_insert(seq);
        // No commit has so much.
        let at = u32::try_from(events.len()).unwrap_or(u32::MAX);
        Place { seq, home, prev, at }.write(places);
        codec::write(events, draft);
        self.figures.recent.count(seq, draft.weight() as u64);
    }

    /// Writes what waits since the last time as one row.
    pub(super) fn keep_waiting(&mut self) -> rusqlite::Result<()> {
        let Waiting { first, places, events } = std::mem::take(&mut self.waiting);
        let Some(first) = first else { return Ok(()) };
        self.figures.recent.rows += 1;
        let mut keep = self.transaction.prepare_cached("INSERT INTO recent VALUES (?, ?, ?)")?;
        keep.execute(params![first, places, events]).map(drop)
    }

    /// Takes up what waited when the file was last open: nobody knows of it yet.
    pub(super) fn recover(&mut self) -> rusqlite::Result<()> {
        for (Place { seq, .. }, draft) in self.all_waiting()? {
            let weight = draft.weight() as u64;
            for channel in draft.channels.iter() {
                let row = self.row_or_new(channel)?.with(seq, weight).waiting(weight);
                self.touched.insert(channel.clone(), row);
            }
            self.figures.recent.count(seq, weight);
            self.figures.bytes += weight;
            self.figures.head = self.figures.head.max(seq);
        }
        Ok(())
    }

    /// Moves all that waits to where it belongs.
    pub(super) fn settle(&mut self) -> rusqlite::Result<()> {
        if self.figures.recent.is_empty() {
            return Ok(());
        }
        self.keep_waiting()?;
        let mut waiting = self.all_waiting()?;
        for (Place { seq, home, prev, .. }, draft) in &waiting {
            self.insert_in_order(draft, *seq, *prev, Some(*home))?;
        }
        // What is for one channel lies on the same pages.
        waiting.sort_by_key(|(place, _)| place.home);
        let mut known = None;
        for (Place { seq, home, prev, .. }, draft) in &waiting {
            self.insert_at_home(draft, *seq, *prev, *home)?;
            if let [channel] = &*draft.channels
                && known.replace(home) != Some(home)
            {
                let row = self.row_or_new(channel)?.settled();
                self.touched.insert(channel.clone(), row);
            }
        }
        self.transaction.prepare_cached("DELETE FROM recent")?.execute([])?;
        self.figures.recent = Recent::default();
        Ok(())
    }

    /// All that waits, in order.
    fn all_waiting(&self) -> rusqlite::Result<Vec<(Place, Draft)>> {
        let mut all = Vec::new();
        let mut lately = Lately::default();
        let mut rows = self.transaction.prepare_cached("SELECT places, events FROM recent ORDER BY first")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let events = row.get_ref(1)?.as_blob()?;
            for place in Place::read_all(row.get_ref(0)?.as_blob()?)? {
                all.push((place, place.draft(events, &mut lately)?));
            }
        }
        Ok(all)
    }
}

/// What waits after one position and up to another, as a reader of the file finds it.
pub(super) struct Found {
    /// In order: the position, and the key of the channel.
    places: Vec<(Seq, i64)>,
    /// The row that was looked into last: most are read one after the other.
    row: Option<(Vec<Place>, Vec<u8>)>,
}

impl Found {
    pub(super) fn look(view: &Connection, after: Seq, until: Seq) -> rusqlite::Result<Self> {
        let mut all = view.prepare_cached(
            "SELECT places FROM recent WHERE first <= ?2
                AND first >= coalesce((SELECT max(first) FROM recent WHERE first <= ?1), 0) ORDER BY first",
        )?;
        let mut rows = all.query(params![after, until])?;
        let mut places = Vec::new();
        while let Some(row) = rows.next()? {
            let row = Place::read_all(row.get_ref(0)?.as_blob()?)?;
            let row = row.into_iter().map(|place| (place.seq, place.home));
            places.extend(row.filter(|(seq, _)| *seq > after && *seq <= until));
        }
        Ok(Self { places, row: None })
    }

    /// Positions and channels' keys, in order.
    pub(super) fn places(&self) -> &[(Seq, i64)] {
        &self.places
    }

    /// The channels that something waits for.
    pub(super) fn homes(&self) -> BTreeSet<i64> {
        self.places.iter().map(|(_, home)| *home).collect()
    }

    /// The event at a position, if it waits.
    pub(super) fn event(&mut self, view: &Connection, seq: Seq) -> rusqlite::Result<Option<Record>> {
        if self.places.binary_search_by_key(&seq, |(seq, _)| *seq).is_err() {
            return Ok(None);
        }
        let find = |row: &(Vec<Place>, _)| row.0.iter().find(|place| place.seq == seq).copied();
        if self.row.as_ref().and_then(find).is_none() {
            let mut look = view.prepare_cached(
                "SELECT places, events FROM recent WHERE first <= ? ORDER BY first DESC LIMIT 1",
            )?;
            let row =
                look.query_row([seq], |row| Ok((Place::read_all(row.get_ref(0)?.as_blob()?)?, row.get(1)?)));
            self.row = row.optional()?;
        }
        let Some(row) = &self.row else { return Ok(None) };
        let Some(place) = find(row) else { return Ok(None) };
        let draft = place.draft(&row.1, &mut Lately::default())?;
        Ok(Some(Record::committed(draft, seq, place.prev)))
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
            self.database().figures.recent.events
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
        let publish = |file: &mut File, count: usize| {
            file.do_one(&Deed::Publish(vec![draft(&[0], 10, false); count]));
            file.waiting()
        };
        for _ in 1..MOST / 4 {
            publish(&mut file, 4);
        }
        assert_eq!([3, 1].map(|count| publish(&mut file, count)), [MOST - 1, 0]);
        for _ in 1..MOST_ROWS {
            publish(&mut file, 1);
        }
        assert_eq!([1, 1].map(|count| publish(&mut file, count)), [0, 1]);
        let connection = file.database.take().expect("it is open").into_connection();
        file.database = Some(Database::new(connection, Retention::default()).expect("a log"));
        assert_eq!(file.waiting(), 0);
    }
}
