//! For those who write a log: the promises of [`log`](crate::log), as checks.

/// What every log promises, tried through its messages alone.
///
/// ```
/// use fanfare::testing::log_contract;
/// use fanfare::{Log, MemoryLog};
///
/// # actix_web::rt::System::new().block_on(async {
/// log_contract::check(|| Box::new(MemoryLog::default()) as Box<dyn Log>).await;
/// # });
/// ```
pub mod log_contract {
    // A check that fails panics.
    #![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use actix::prelude::*;
    use tokio::sync::mpsc;

    use crate::actors::log::{
        Commit, CommitFailed, Committed, Follower, Forget, Log, LogHandle, LogHealth, LogSetup, Opened,
        Outcome, Page, PageLimit, ReadAfter, Relayed, Seek, Sought, Trimmed,
    };
    use crate::channel::{Channel, Selector};
    use crate::cursor::{Lineage, Seq};
    use crate::event::{Event, EventId};
    use crate::identity::{Publisher, SessionId};
    use crate::interest::{Filter, Interest, Subscription};
    use crate::record::Draft;
    use crate::retention::Retention;

    const PATIENCE: Duration = Duration::from_secs(10);
    const ALL: PageLimit = PageLimit { events: 10_000, bytes: usize::MAX };

    /// Tries every promise on a new, empty log that `make` makes. A log that cannot hold a thousand events fails.
    ///
    /// # Panics
    ///
    /// If a promise is not kept.
    pub async fn check(make: impl Fn() -> Box<dyn Log>) {
        let promises = Promises { make: &make };
        println!("commits are settled once and in order");
        promises.commits_are_settled_once_and_in_order().await;
        println!("an id is stored once for each publisher");
        promises.an_id_is_stored_once_for_each_publisher().await;
        println!("pages are disjoint, complete and bounded");
        promises.pages_are_disjoint_complete_and_bounded().await;
        println!("the last n are found");
        promises.the_last_n_are_found().await;
        println!("each channel is held to its bounds");
        promises.each_channel_is_held_to_its_bounds().await;
        println!("what is too old goes");
        promises.what_is_too_old_goes().await;
        println!("the whole log is held to its bound");
        promises.the_whole_log_is_held_to_its_bound().await;
        println!("what one channel does not keep another may");
        promises.what_one_channel_does_not_keep_another_may().await;
        println!("what is forgotten is told, and no position is taken again");
        promises.what_is_forgotten_is_told().await;
    }

    /// Tries what a log that persists promises besides: `open` opens the same log each time, and finds it empty at first.
    ///
    /// # Panics
    ///
    /// If a promise is not kept.
    pub async fn check_reopen(open: impl Fn() -> Box<dyn Log>) {
        reopen(&open).await;
    }

    /// As [`check_reopen`], for a log that gives its positions itself: what a crash took of it must not be mistaken for
    /// what took its place, so each start is a new term.
    ///
    /// # Panics
    ///
    /// If a promise is not kept.
    pub async fn check_reopen_in_terms(open: impl Fn() -> Box<dyn Log>) {
        let (lineage, now, head, next) = reopen(&open).await;
        assert_eq!(now.locate(&lineage.timeline().cursor(head), next), Ok(head));
        let beyond = now.locate(&lineage.timeline().cursor(next), next);
        assert!(beyond.is_err(), "a position beyond the end of an old term is of another timeline");
        assert_ne!(now.timeline(), lineage.timeline(), "each start is a new term");
    }

    /// Returns the lineages of both starts, the head at the end of the first, and a position of the second.
    async fn reopen(open: &dyn Fn() -> Box<dyn Log>) -> (Lineage, Lineage, Seq, Seq) {
        let rule = "held/**=interest:grace=1s".parse().expect("valid");
        let retention = Retention::default().rule(rule);
        let mut log = Driven::start(open(), retention.clone()).await;
        let lineage = log.opened.lineage.clone();
        assert_eq!(log.opened.head, 0, "the log is empty at first");
        let first = vec![draft(&["a"]), draft(&["held/1"]), with_id(draft(&["b"]), "ada", "1")];
        let &[_, _, Outcome::New(known)] = log.commit(first).await.as_slice() else {
            panic!("three are new")
        };
        log.commit(vec![draft(&["a"])]).await;
        let head = log.head;
        let before = log.read_all(&interest(&["**"]), 0, head, ALL).await;
        log.close().await;

        let mut log = Driven::start(open(), retention).await;
        assert_eq!(log.opened.head, head, "the head goes on where it was");
        let held: Vec<_> = log.opened.held.iter().map(Channel::as_str).collect();
        assert_eq!(held, ["held/1"], "held names the channels kept by interest that have events");
        assert_eq!(log.read_all(&interest(&["**"]), 0, head, ALL).await, before, "nothing is lost");
        let outcomes = log.commit(vec![with_id(draft(&["b"]), "ada", "1")]).await;
        assert_eq!(outcomes, [Outcome::Duplicate(known)], "ids are still known");
        let outcomes = log.commit(vec![draft(&["a"])]).await;
        assert!(matches!(outcomes[..], [Outcome::New(next)] if next > head), "positions go on");
        let (now, next) = (log.opened.lineage.clone(), log.head);
        let cursor = lineage.timeline().cursor(head);
        assert_eq!(now.locate(&cursor, next), Ok(head), "an old cursor is still of this log");
        log.close().await;
        (lineage, now, head, next)
    }

    struct Promises<'a> {
        make: &'a dyn Fn() -> Box<dyn Log>,
    }

    impl Promises<'_> {
        async fn log(&self, rules: &[&str]) -> Driven {
            let rules = rules.iter().map(|rule| rule.parse().expect("valid"));
            Driven::start((self.make)(), rules.fold(Retention::default(), Retention::rule)).await
        }

        async fn commits_are_settled_once_and_in_order(&self) {
            let mut log = self.log(&[]).await;
            for ticket in 0..20 {
                let drafts = (0..ticket % 5 + 1).map(|_| draft(&["a"])).collect();
                log.handle.commit.do_send(Commit { ticket, drafts });
                // The broker has one commit under way at a time.
                let Fact::Committed(committed) = log.fact().await else { panic!("a commit failed") };
                let settled = committed.settles.expect("it settles a command");
                assert_eq!(settled.ticket, ticket, "in the order of the commands");
                let seqs: Vec<_> = committed.records.iter().filter_map(|record| record.seq()).collect();
                assert_eq!(seqs.len() as u64, ticket % 5 + 1, "all of a command");
                let new: Vec<_> = seqs.iter().map(|&seq| Outcome::New(seq)).collect();
                assert_eq!(settled.outcomes, new, "one outcome for each event");
                assert!(seqs.is_sorted_by(|a, b| a < b), "strictly increasing");
                assert!(seqs[0] > log.head, "after all before");
                log.head = *seqs.last().expect("one at least");
            }
            let count = (0..20).map(|ticket| ticket % 5 + 1).sum::<u64>() as usize;
            assert_eq!(log.read_all(&interest(&["a"]), 0, log.head, ALL).await.len(), count);
            log.commit(vec![draft(&["b"]), draft(&["c", "b"]), draft(&["b", "c"])]).await;
            let page = log.read(&interest(&["b"]), 0, log.head, ALL).await;
            let places: Vec<_> = page.records.iter().map(|record| record.place.expect("stored")).collect();
            let prevs: Vec<_> = places.iter().map(|place| place.prev).collect();
            assert_eq!(prevs, [0, 0, places[1].seq], "prev is the one before on the first channel");
        }

        async fn an_id_is_stored_once_for_each_publisher(&self) {
            let mut log = self.log(&[]).await;
            let once = || with_id(draft(&["a"]), "ada", "1");
            let outcomes = log.commit(vec![once(), once(), with_id(draft(&["a"]), "bob", "1")]).await;
            let &[Outcome::New(first), Outcome::Duplicate(again), Outcome::New(bobs)] = outcomes.as_slice()
            else {
                panic!("{outcomes:?}")
            };
            assert!(first == again && bobs > first);
            let outcomes = log.commit(vec![draft(&["a"]), once()]).await;
            assert_eq!(outcomes[1], Outcome::Duplicate(first), "also in another commit");
            assert_eq!(log.commit(vec![once()]).await, [Outcome::Duplicate(first)], "also alone");
            assert_eq!(log.read_all(&interest(&["a"]), 0, log.head, ALL).await.len(), 3);
        }

        async fn pages_are_disjoint_complete_and_bounded(&self) {
            let mut log = self.log(&[]).await;
            let session = SessionId::mint();
            let (inbox, everyone) = (Channel::inbox(session), Channel::everyone());
            let names = ["a", "a/1", "a/2/x", "b", "quiet"];
            let mut drafts = Vec::new();
            for number in 0..400_usize {
                let mut draft = match number % 9 {
                    0..4 => draft(&[names[number % 4]]),
                    4 => draft(&["b", "a/1"]),
                    5 => draft(&["a", "a/1", "a/2/x"]),
                    6 => to(vec![inbox.clone()]),
                    7 => to(vec![everyone.clone()]),
                    _ => to(vec![Channel::inbox(SessionId::mint())]),
                };
                let attributes = if number % 37 == 0 { r#"{"k":"rare"}"# } else { r#"{"k":"often"}"# };
                draft.attributes = crate::event::Attributes::restore(attributes);
                drafts.push(draft);
            }
            let mut all = Vec::new();
            for some in drafts.chunks(70) {
                for (outcome, draft) in log.commit(some.to_vec()).await.into_iter().zip(some) {
                    let Outcome::New(seq) = outcome else { panic!("{outcome:?}") };
                    all.push((seq, draft.clone()));
                }
            }
            let selections: [&[&str]; 8] = [
                &["a"],
                &["a", "a/1", "b"],
                &["a/*"],
                &["a/**"],
                &["**"],
                &["a/**", "a/1", "*/1"],
                &["quiet"],
                &[],
            ];
            for selectors in selections {
                for terms in [&[][..], &["k:rare"][..], &["k:none"][..]] {
                    let interest = Interest::new(session, subscription(selectors, terms));
                    for limit in [
                        ALL,
                        PageLimit { events: 1, ..ALL },
                        PageLimit { events: 7, ..ALL },
                        PageLimit { events: 100, bytes: 1500 },
                    ] {
                        for (after, until) in [(0, log.head), (all[50].0, all[333].0)] {
                            let wanted = all.iter().filter(|(seq, draft)| {
                                (after + 1..=until).contains(seq) && interest.covers_event(draft)
                            });
                            let wanted: Vec<_> = wanted.map(|(seq, _)| *seq).collect();
                            let got = log.read_all(&interest, after, until, limit).await;
                            assert_eq!(got, wanted, "{selectors:?} {terms:?} {limit:?} ({after}, {until}]");
                        }
                    }
                }
            }
        }

        async fn the_last_n_are_found(&self) {
            let mut log = self.log(&[]).await;
            let mut all = Vec::new();
            for number in 0..90 {
                let mut draft = draft(&[["a", "b", "c/1"][number % 3]]);
                let attributes = if number % 4 == 0 { r#"{"k":"1"}"# } else { "{}" };
                draft.attributes = crate::event::Attributes::restore(attributes);
                let Outcome::New(seq) = log.commit(vec![draft.clone()]).await[0] else { panic!("new") };
                all.push((seq, draft));
            }
            for (selectors, terms) in [
                (&["a"][..], &[][..]),
                (&["a", "c/*"], &[]),
                (&["**"], &["k:1"]),
                (&["a"], &["k:1"]),
                (&["x"], &[]),
            ] {
                let interest = Interest::new(SessionId::mint(), subscription(selectors, terms));
                for until in [log.head, all[40].0] {
                    let of_interest =
                        all.iter().filter(|(seq, draft)| *seq <= until && interest.covers_event(draft));
                    let wanted: Vec<_> = of_interest.map(|(seq, _)| *seq).collect();
                    for last in [0, 1, 3, 8, 500] {
                        let position = log.seek(last as u64, until, &interest).await;
                        let got = log.read_all(&interest, position, until, ALL).await;
                        let wanted = &wanted[wanted.len().saturating_sub(last)..];
                        assert_eq!(got, wanted, "the last {last} of {selectors:?} {terms:?} up to {until}");
                    }
                }
            }
        }

        async fn each_channel_is_held_to_its_bounds(&self) {
            let weight = draft(&["bytes"]).weight();
            let bytes = format!("bytes=limits:max_bytes={}", 3 * weight);
            let mut log = self.log(&["few=limits:max_events=3", &bytes]).await;
            for name in ["few", "bytes"] {
                let mut seqs = Vec::new();
                for number in 1..=5 {
                    log.commit(vec![draft(&[name]), draft(&["quiet"])]).await;
                    seqs.push(log.head - 1);
                    let page = log.read(&interest(&[name]), 0, log.head, ALL).await;
                    assert_eq!(seqs_of(&page), seqs[seqs.len().saturating_sub(3)..], "the newest of {name}");
                    let gone = (number > 3).then(|| seqs[number - 4]);
                    assert_eq!(page.trimmed, gone, "what was removed of {name} is told");
                }
                let page = log.read(&interest(&[name]), seqs[1], log.head, ALL).await;
                assert_eq!(page.trimmed, None, "who was beyond it is told of no loss");
            }
            let page = log.read(&interest(&["quiet"]), 0, log.head, ALL).await;
            assert_eq!((page.records.len(), page.trimmed), (10, None), "a quiet channel has lost nothing");
            let page = log.read(&interest(&["*"]), 0, log.head, ALL).await;
            assert!(page.trimmed.is_some(), "a wildcard covers what has lost some");
        }

        async fn what_is_too_old_goes(&self) {
            let mut log = self.log(&["short=limits:max_age=300ms"]).await;
            log.commit(vec![draft(&["short"]), draft(&["long"])]).await;
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                let page = log.read(&interest(&["short"]), 0, log.head, ALL).await;
                if page.records.is_empty() {
                    assert_eq!(page.trimmed, Some(log.head - 1), "it is told");
                    break;
                }
                assert!(std::time::Instant::now() < deadline, "it goes when it is as old as max_age");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let page = log.read(&interest(&["long"]), 0, log.head, ALL).await;
            assert_eq!((page.records.len(), page.trimmed), (1, None));
            let before = log.head;
            log.commit(vec![draft(&["short"])]).await;
            assert!(log.head > before, "no position is taken again");
        }

        async fn the_whole_log_is_held_to_its_bound(&self) {
            let weight = draft(&["x"]).weight() as u64;
            let retention = Retention::default().max_log_bytes(10 * weight);
            let mut log = Driven::start((self.make)(), retention).await;
            let mut seqs = Vec::new();
            for number in 0..30 {
                log.commit(vec![draft(&[["x", "y"][number % 2]])]).await;
                seqs.push(log.head);
            }
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                let page = log.read(&interest(&["*"]), 0, log.head, ALL).await;
                if seqs_of(&page) == seqs[20..] {
                    assert_eq!(page.trimmed, Some(seqs[19]));
                    return;
                }
                assert!(std::time::Instant::now() < deadline, "the oldest go: {:?}", seqs_of(&page));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }

        async fn what_one_channel_does_not_keep_another_may(&self) {
            let mut log = self.log(&["none=none"]).await;
            log.commit(vec![draft(&["none", "kept"])]).await;
            let kept = log.read(&interest(&["kept"]), 0, log.head, ALL).await;
            assert_eq!((kept.records.len(), kept.trimmed), (1, None));
            let both = log.read(&interest(&["none", "kept"]), 0, log.head, ALL).await;
            assert_eq!(both.records.len(), 1, "once, and by the channel that keeps it");
        }

        async fn what_is_forgotten_is_told(&self) {
            let mut log = self.log(&[]).await;
            log.commit((0..600).map(|_| draft(&["gone"])).collect()).await;
            let last = log.head;
            log.commit(vec![draft(&["kept"])]).await;
            log.handle.forget.do_send(Forget { channel: Channel::restore("gone") });
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                let page = log.read(&interest(&["gone"]), 0, log.head, ALL).await;
                if page.records.is_empty() && page.through == log.head {
                    assert_eq!(page.trimmed, Some(last), "it is told");
                    break;
                }
                assert!(std::time::Instant::now() < deadline, "it is forgotten");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let page = log.read(&interest(&["kept"]), 0, log.head, ALL).await;
            assert_eq!((page.records.len(), page.trimmed), (1, None));
            log.handle.forget.do_send(Forget { channel: Channel::restore("kept") });
            let head = log.head;
            assert!(matches!(log.commit(vec![draft(&["new"])]).await[..], [Outcome::New(seq)] if seq > head));
        }
    }

    /// A log under way, and what it tells.
    struct Driven {
        handle: LogHandle,
        opened: Opened,
        head: Seq,
        facts: mpsc::UnboundedReceiver<Fact>,
        ticket: u64,
        probe: Addr<Probe>,
    }

    impl Driven {
        async fn start(log: Box<dyn Log>, retention: Retention) -> Self {
            let (send, mut facts) = mpsc::unbounded_channel();
            let probe = Probe(send).start();
            let follower = Follower {
                opened: probe.downgrade().recipient(),
                committed: probe.downgrade().recipient(),
                failed: probe.downgrade().recipient(),
                health: probe.downgrade().recipient(),
                trimmed: probe.downgrade().recipient(),
                relayed: probe.downgrade().recipient(),
            };
            let handle = log.start(LogSetup { follower, retention }).expect("it starts");
            let opened = match tokio::time::timeout(PATIENCE, facts.recv()).await {
                Ok(Some(Fact::Opened(opened))) => opened,
                _ => panic!("the first that a log says is Opened"),
            };
            Self { handle, head: opened.head, opened, facts, ticket: 1 << 32, probe }
        }

        async fn fact(&mut self) -> Fact {
            let fact = tokio::time::timeout(PATIENCE, self.facts.recv()).await;
            fact.expect("it answers").expect("the probe lives")
        }

        async fn commit(&mut self, drafts: Vec<Draft>) -> Vec<Outcome> {
            self.ticket += 1;
            self.handle.commit.do_send(Commit { ticket: self.ticket, drafts });
            let Fact::Committed(committed) = self.fact().await else { panic!("a commit failed") };
            let settled = committed.settles.expect("it settles the command");
            assert_eq!(settled.ticket, self.ticket, "one answer for each command");
            let new = settled.outcomes.iter().filter_map(|outcome| match outcome {
                Outcome::New(seq) => Some(*seq),
                Outcome::Duplicate(_) => None,
            });
            let new: Vec<_> = new.collect();
            let seqs: Vec<_> = committed.records.iter().filter_map(|record| record.seq()).collect();
            assert_eq!(seqs, new, "the records are the new events");
            self.head = seqs.last().copied().unwrap_or(self.head);
            settled.outcomes
        }

        async fn read(&self, interest: &Interest, after: Seq, until: Seq, limit: PageLimit) -> Page {
            let query = ReadAfter { after, until, interest: interest.clone(), limit };
            self.handle.read.send(query).await.expect("it lives").expect("it answers")
        }

        /// Looks for the last events of interest, in as many steps as the log takes.
        async fn seek(&self, last: u64, until: Seq, interest: &Interest) -> Seq {
            let mut sought = Sought { position: until, left: last };
            loop {
                let query = Seek { last: sought.left, until: sought.position, interest: interest.clone() };
                let next = self.handle.seek.send(query).await.expect("it lives").expect("it answers");
                if next.left == 0 {
                    return next.position;
                }
                assert!(next.position < sought.position, "a step leads on");
                assert!(next.left <= sought.left, "what is found stays found");
                sought = next;
            }
        }

        /// Reads page by page, and holds each to the rules of pages.
        async fn read_all(&self, interest: &Interest, after: Seq, until: Seq, limit: PageLimit) -> Vec<Seq> {
            let (mut position, mut all) = (after, Vec::new());
            while position < until {
                let page = self.read(interest, position, until, limit).await;
                let seqs = seqs_of(&page);
                assert!(seqs.len() <= limit.events, "a page is bounded");
                let weights = page.records.iter().map(|record| record.draft.weight());
                let but_last = weights.take(seqs.len().saturating_sub(1)).sum::<usize>();
                assert!(
                    seqs.len() <= 1 || but_last < limit.bytes,
                    "a page ends with the event that fills it"
                );
                assert!(page.through > position && page.through <= until, "a page leads on");
                assert!(seqs.is_sorted_by(|a, b| a < b), "in order, each once");
                assert!(seqs.iter().all(|seq| (position + 1..=page.through).contains(seq)), "in its stretch");
                assert!(
                    page.records.iter().all(|record| interest.covers_event(&record.draft)),
                    "of interest"
                );
                all.extend(seqs);
                position = page.through;
            }
            all
        }

        /// Lets go of the log, and waits a moment for its threads to end.
        async fn close(self) {
            let Self { handle, probe, facts, .. } = self;
            drop((handle, probe, facts));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    struct Probe(mpsc::UnboundedSender<Fact>);

    enum Fact {
        Opened(Opened),
        Committed(Committed),
        Failed,
    }

    impl Actor for Probe {
        type Context = Context<Self>;
    }

    impl Handler<Opened> for Probe {
        type Result = ();

        fn handle(&mut self, opened: Opened, _: &mut Self::Context) {
            let _ = self.0.send(Fact::Opened(opened));
        }
    }

    impl Handler<Committed> for Probe {
        type Result = ();

        fn handle(&mut self, committed: Committed, _: &mut Self::Context) {
            let _ = self.0.send(Fact::Committed(committed));
        }
    }

    impl Handler<CommitFailed> for Probe {
        type Result = ();

        fn handle(&mut self, _: CommitFailed, _: &mut Self::Context) {
            let _ = self.0.send(Fact::Failed);
        }
    }

    impl Handler<Trimmed> for Probe {
        type Result = ();

        // What is removed is seen in the pages.
        fn handle(&mut self, _: Trimmed, _: &mut Self::Context) {}
    }

    impl Handler<Relayed> for Probe {
        type Result = ();

        fn handle(&mut self, _: Relayed, _: &mut Self::Context) {}
    }

    impl Handler<LogHealth> for Probe {
        type Result = ();

        fn handle(&mut self, health: LogHealth, _: &mut Self::Context) {
            assert!(health.is_writable, "it takes events all the time");
        }
    }

    fn to(channels: Vec<Channel>) -> Draft {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        Draft::new(Event::text("x", "payload").expect("valid"), channels.into(), Publisher::HUB, now)
    }

    fn draft(channels: &[&str]) -> Draft {
        to(channels.iter().map(|name| Channel::new(name).expect("valid")).collect())
    }

    fn with_id(draft: Draft, publisher: &str, id: &str) -> Draft {
        Draft { id: EventId::new(id).expect("valid"), publisher: Some(Publisher::named(publisher)), ..draft }
    }

    fn subscription(selectors: &[&str], terms: &[&str]) -> Subscription {
        let selectors = selectors.iter().map(|text| Selector::new(text).expect("valid"));
        Subscription::new(selectors, Filter::parse(terms.iter().copied()).expect("valid"))
    }

    fn interest(selectors: &[&str]) -> Interest {
        Interest::new(SessionId::mint(), subscription(selectors, &[]))
    }

    fn seqs_of(page: &Page) -> Vec<Seq> {
        page.records.iter().filter_map(|record| record.seq()).collect()
    }
}
