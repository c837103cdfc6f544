//! The tables, and how an older file comes to have them.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// `fanf` in ASCII: what `file` and a curious operator find in the header.
const APPLICATION_ID: i64 = 0x6661_6e66;

/// One step per version; a file of version `n` takes the steps from `n` on.
///
/// `meta` holds single values; `head` is the newest position, in a row that expiry never touches. `terms` are the starts
/// of the writer. `channels` keep what outlives their events: the last position, the newest one removed, and figures for
/// retention; `due` is when the oldest event is too old. `events` are all events in order; `left` counts the channels that
/// still hold one. `placements` are the index for replay by channel. A small event of one channel stands in its
/// placement whole, beside its neighbours of that channel, and `home` says where: what a client missed then lies
/// together, however much others published in between. `ids` remember who published what.
///
/// `recent` is where such events stand first, those of a commit in one row, whichever channels they are for. When there are
/// some more of them they move into `placements` and `events` together, so that a channel's page and its row are written once
/// for several: `events` and `bytes` of `channels`, and `head` and `bytes` of `meta`, are without those that wait.
const STEPS: [&str; 3] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE terms (place INTEGER PRIMARY KEY, name TEXT NOT NULL, first INTEGER NOT NULL);
    CREATE TABLE channels (
        key INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        last INTEGER NOT NULL,
        trimmed INTEGER NOT NULL,
        events INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        due INTEGER
    );
    CREATE INDEX channels_by_last ON channels (last);
    CREATE INDEX channels_by_trimmed ON channels (trimmed) WHERE trimmed > 0;
    CREATE INDEX channels_by_due ON channels (due) WHERE due IS NOT NULL;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        prev INTEGER NOT NULL,
        channels TEXT NOT NULL,
        left INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        time INTEGER NOT NULL,
        home INTEGER,
        id TEXT,
        name TEXT,
        attributes TEXT,
        is_json INTEGER,
        payload TEXT
    );
    CREATE TABLE placements (
        channel INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        prev INTEGER,
        time INTEGER,
        id TEXT,
        name TEXT,
        attributes TEXT,
        is_json INTEGER,
        payload TEXT,
        PRIMARY KEY (channel, seq)
    ) WITHOUT ROWID;
    CREATE TABLE ids (
        place INTEGER PRIMARY KEY,
        publisher TEXT NOT NULL,
        id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        time INTEGER NOT NULL,
        UNIQUE (publisher, id)
    );
    CREATE INDEX ids_by_time ON ids (time);
    INSERT INTO meta VALUES ('head', 0), ('bytes', 0), ('forgotten', 0), ('retention', '');
",
    "
    CREATE TABLE recent (
        seq INTEGER PRIMARY KEY,
        home INTEGER NOT NULL,
        prev INTEGER NOT NULL,
        channels TEXT NOT NULL,
        weight INTEGER NOT NULL,
        time INTEGER NOT NULL,
        id TEXT NOT NULL,
        name TEXT,
        attributes TEXT,
        is_json INTEGER NOT NULL,
        payload TEXT NOT NULL
    );
",
    "
    INSERT INTO placements SELECT home, seq, prev, time, id, name, attributes, is_json, payload FROM recent;
    INSERT INTO events (seq, prev, channels, left, weight, time, home)
        SELECT seq, prev, channels, 1, weight, time, home FROM recent;
    DROP TABLE recent;
    CREATE TABLE recent (first INTEGER PRIMARY KEY, places BLOB NOT NULL, events BLOB NOT NULL);
",
];

/// How long a statement waits for another program that has the file.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// As much of the file as readers map.
const MAPPED: i64 = 1 << 40;

/// Opens the file for writing and brings it to this version.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let why = "this file system has no shared memory, which the write-ahead log needs; use a local disk";
        return Err(refuse(rusqlite::ffi::SQLITE_CANTOPEN, why));
    }
    tune(&connection)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the file for reading.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    tune(&connection)?;
    // What a client missed lies scattered over the file; mapped, a page costs no call and no copy.
    connection.pragma_update_and_check(None, "mmap_size", MAPPED, |_| Ok(()))?;
    Ok(connection)
}

/// Opens the file for moving the write-ahead log into it.
pub(super) fn open_to_checkpoint(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    tune(&connection)?;
    Ok(connection)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_new = version == 0 && tables == 0;
    if !is_new && application != APPLICATION_ID {
        return Err(refuse(rusqlite::ffi::SQLITE_NOTADB, "this database is of another program"));
    }
    let done = usize::try_from(version).ok().filter(|&version| version <= STEPS.len());
    let done = done.ok_or_else(|| refuse(rusqlite::ffi::SQLITE_NOTADB, "this log is of a newer version"))?;
    for step in STEPS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", STEPS.len() as i64)?;
    transaction.commit()
}

fn refuse(code: i32, why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(why.into()))
}

#[cfg(test)]
mod tests {
    use super::super::database::{Batch, Database};
    use super::super::reader;
    use super::*;
    use crate::actors::log::index::Numbering;
    use crate::actors::log::{PageLimit, ReadAfter};
    use crate::channel::{Channel, Selector};
    use crate::event::Event;
    use crate::identity::{Publisher, SessionId};
    use crate::interest::{Filter, Interest, Subscription};
    use crate::record::Draft;
    use crate::retention::Retention;

    /// What files of earlier versions have is there, in its place before what comes.
    #[test]
    fn files_of_earlier_versions_are_taken_up() {
        let in_place = "
            INSERT INTO channels VALUES (1, 'a', 7, 0, 1, 300, NULL);
            INSERT INTO placements VALUES (1, 7, 0, 5, 'old', NULL, NULL, 0, 'first');
            INSERT INTO events (seq, prev, channels, left, weight, time, home) VALUES (7, 0, 'a', 1, 300, 5, 1);
            UPDATE meta SET value = 7 WHERE key = 'head'; UPDATE meta SET value = 300 WHERE key = 'bytes';";
        let waiting = "
            INSERT INTO channels VALUES (1, 'a', 7, 0, 1, 300, NULL);
            INSERT INTO recent VALUES (7, 1, 0, 'a', 300, 5, 'old', NULL, NULL, 0, 'first');
            UPDATE meta SET value = 7 WHERE key = 'head'; UPDATE meta SET value = 300 WHERE key = 'bytes';";
        for (version, rows) in [(1, in_place), (2, in_place), (2, waiting)] {
            take_up(version, rows);
        }
    }

    fn take_up(version: usize, rows: &str) {
        let mut connection = Connection::open_in_memory().expect("a file");
        connection.execute_batch(&STEPS[..version].concat()).expect("tables");
        connection.pragma_update(None, "application_id", APPLICATION_ID).expect("its own");
        connection.pragma_update(None, "user_version", version).expect("an earlier one");
        connection.execute_batch(rows).expect("an event");
        migrate(&mut connection).expect("this version");
        let mut database = Database::new(connection, Retention::default()).expect("a log");
        let channel = Channel::new("a").expect("valid");
        let draft =
            Draft::new(Event::text("x", "second").expect("valid"), [channel].into(), Publisher::HUB, 6);
        let weight = draft.weight() as u64;
        let batch = Batch { drafts: vec![draft], numbering: Numbering::Next, now: 6, through: None };
        database.append(vec![batch]).expect("appended");
        assert_eq!(database.figures.bytes, 300 + weight);
        let followed = Subscription::new([Selector::new("a").expect("valid")], Filter::default());
        let interest = Interest::new(SessionId::mint(), followed);
        let limit = PageLimit { events: 10, bytes: usize::MAX };
        let query = ReadAfter { after: 0, until: 8, interest, limit };
        let page = reader::page(database.connection(), &query).expect("readable");
        let events = page.records.iter().map(|record| {
            (record.seq(), record.place.map(|place| place.prev), record.draft.payload.as_str())
        });
        assert_eq!(events.collect::<Vec<_>>(), [(Some(7), Some(0), "first"), (Some(8), Some(7), "second")]);
    }
}
