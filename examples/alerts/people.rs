//! Who there is, who is logged in, and who may see what. Decides; the [`Directory`](crate::directory::Directory) owns it
//! and does the sending.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use fanfare::SessionId;

use crate::refusal::Refusal;
use crate::values::{BadName, PersonName, StreamName};

/// As many logins as are known at a time.
const MAX_LOGINS: usize = 10_000;
/// How long a login lasts.
const LASTS: Duration = Duration::from_secs(12 * 3600);

/// A person as the command line has it. An application has its own way to know people, and keeps no passwords like this.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    name: PersonName,
    password: String,
    streams: Streams,
    is_operator: bool,
}

/// The alert streams that somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Streams {
    All,
    Some(BTreeSet<StreamName>),
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// What their streams are opened as. Another one when what they may see has changed, so that it can be told which
    /// streams were granted before; a word to the person that was not heard by then stays with the old one.
    pub(crate) session: SessionId,
    pub(crate) name: PersonName,
    pub(crate) streams: Streams,
    pub(crate) is_operator: bool,
    pub(crate) expires: SystemTime,
}

#[derive(Debug)]
pub(crate) struct People {
    persons: HashMap<PersonName, Person>,
    /// By what the cookie says.
    logins: HashMap<SessionId, Login>,
}

#[derive(Debug)]
struct Login {
    name: PersonName,
    session: SessionId,
    expires: SystemTime,
    /// Logged out. It is kept until it would have expired, so that whoever comes back with it is told that it is over.
    is_over: bool,
}

impl Streams {
    pub(crate) fn parse(names: impl IntoIterator<Item = String>) -> Result<Self, BadName> {
        let names: Vec<_> = names.into_iter().collect();
        if names == ["*"] {
            return Ok(Self::All);
        }
        names.into_iter().map(StreamName::try_from).collect::<Result<_, _>>().map(Self::Some)
    }

    pub(crate) fn include(&self, stream: &StreamName) -> bool {
        match self {
            Self::All => true,
            Self::Some(streams) => streams.contains(stream),
        }
    }

    /// The channels to follow for all of them.
    pub(crate) fn selectors(&self) -> Vec<String> {
        match self {
            Self::All => vec!["alerts/*".into()],
            Self::Some(streams) => streams.iter().map(StreamName::channel).collect(),
        }
    }
}

impl FromStr for Person {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(name), Some(password), Some(streams), role, None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("must be NAME:PASSWORD:STREAM,STREAM or with :operator behind it".into());
        };
        let names = streams.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned);
        Ok(Self {
            name: name.to_owned().try_into().map_err(|bad: BadName| bad.to_string())?,
            password: password.to_owned(),
            streams: Streams::parse(names).map_err(|bad| bad.to_string())?,
            is_operator: match role {
                None => false,
                Some("operator") => true,
                Some(_) => return Err("the only role is operator".into()),
            },
        })
    }
}

impl Person {
    fn member(&self, login: &Login) -> Member {
        let (name, streams) = (self.name.clone(), self.streams.clone());
        Member {
            session: login.session,
            name,
            streams,
            is_operator: self.is_operator,
            expires: login.expires,
        }
    }
}

impl People {
    pub(crate) fn new(persons: Vec<Person>) -> Self {
        let persons = persons.into_iter().map(|person| (person.name.clone(), person)).collect();
        Self { persons, logins: HashMap::new() }
    }

    pub(crate) fn log_in(
        &mut self,
        cookie: SessionId,
        name: &PersonName,
        password: &str,
        now: SystemTime,
    ) -> Result<Member, Refusal> {
        let person = self.persons.get(name).filter(|person| person.password == password);
        let person = person.ok_or(Refusal::WrongPassword)?;
        if self.logins.len() >= MAX_LOGINS {
            return Err(Refusal::Full);
        }
        let session = SessionId::mint();
        let login = Login { name: name.clone(), session, expires: now + LASTS, is_over: false };
        let member = person.member(&login);
        self.logins.insert(cookie, login);
        Ok(member)
    }

    /// Who is logged in with this cookie.
    pub(crate) fn who(&self, cookie: SessionId, now: SystemTime) -> Result<Member, Refusal> {
        let login = self.logins.get(&cookie).filter(|login| now < login.expires);
        let login = login.ok_or(Refusal::Unknown)?;
        if login.is_over {
            return Err(Refusal::Over);
        }
        let person = self.persons.get(&login.name).ok_or(Refusal::Unknown)?;
        Ok(person.member(login))
    }

    /// Ends a login, and says what its streams were opened as.
    pub(crate) fn log_out(&mut self, cookie: SessionId) -> Option<SessionId> {
        let login = self.logins.get_mut(&cookie).filter(|login| !login.is_over)?;
        login.is_over = true;
        Some(login.session)
    }

    /// Says what somebody may see from now on, and what their streams were opened as until now.
    pub(crate) fn permit(&mut self, name: &PersonName, streams: Streams) -> Result<Vec<SessionId>, Refusal> {
        self.persons.get_mut(name).ok_or(Refusal::Nobody)?.streams = streams;
        let theirs = self.logins.values_mut().filter(|login| login.name == *name && !login.is_over);
        Ok(theirs.map(|login| std::mem::replace(&mut login.session, SessionId::mint())).collect())
    }

    /// All that somebody is logged in with.
    pub(crate) fn sessions(&self, name: &PersonName) -> Result<Vec<SessionId>, Refusal> {
        if !self.persons.contains_key(name) {
            return Err(Refusal::Nobody);
        }
        let theirs = self.logins.values().filter(|login| login.name == *name && !login.is_over);
        Ok(theirs.map(|login| login.session).collect())
    }

    pub(crate) fn forget_old(&mut self, now: SystemTime) {
        self.logins.retain(|_, login| now < login.expires);
    }
}
