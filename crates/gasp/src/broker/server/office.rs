//! Tokens: who has which, and who may redeem them.
//!
//! Every client has a thread of its own, which ends with its connection, as its tokens do. The
//! connections and tokens of a user, and the connections of all users, are limited, so that no user
//! keeps another from being served; users who may redeem are trusted, and counted apart.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};
use rustix::io::retry_on_intr;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};

use super::frames::{Memory, Run};
use super::greet::greet;
use super::looker::Looker;
use crate::addr::HostPhys;
use crate::broker::wire::{self, HostToken, Request};
use crate::error::Errno;
use crate::memory::HostRun;
use crate::peer::{Peer, peer_of};

/// The maximum number of connections of one user who may not redeem.
const USER_CONNECTIONS: usize = 64;
/// The maximum number of connections of all users who may not redeem, and of all who may.
const CONNECTIONS: usize = 256;
/// The maximum number of tokens of one user.
const USER_TOKENS: usize = 4 * wire::TOKENS_MAX;

/// The number of further look-ups of a page that is not in memory, a millisecond apart.
const ATTEMPTS: usize = 20;

type Token = [u8; 16];

/// The issuer of tokens, which also redeems them.
pub(super) struct Office {
    users: Vec<u32>,
    redeemers: Vec<u32>,
    /// All tokens. No operation is on more than one of them at a time, so that a user who has many
    /// keeps nobody waiting.
    tokens: DashMap<Token, Entry>,
    books: Mutex<Books>,
}

/// The connections, tokens and look-up threads of each user.
#[derive(Default)]
struct Books {
    connections: HashMap<u32, usize>,
    held: HashMap<u32, usize>,
    lookers: HashMap<u32, Looker>,
}

/// The memory that a token stands for.
#[derive(Clone)]
struct Entry {
    asker: Arc<Asker>,
    run: Run,
}

/// A process that asks for tokens.
struct Asker {
    memory: Memory,
    looker: Looker,
}

/// A token of a connection.
#[derive(Clone, Copy)]
struct Own {
    token: Token,
    run: Run,
}

impl Office {
    pub(super) fn new(users: Vec<u32>, mut redeemers: Vec<u32>) -> Arc<Self> {
        // Three descriptors for each connection can exceed the usual limit.
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        {
            tracing::debug!(%error, "cannot raise the limit of open descriptors");
        }
        redeemers.extend([0, geteuid().as_raw()]);
        Arc::new(Self { users, redeemers, tokens: DashMap::new(), books: Mutex::default() })
    }

    /// Serves one client, in a thread of its own.
    pub(super) fn receive(office: &Arc<Self>, client: UnixStream) -> io::Result<()> {
        client.set_write_timeout(Some(wire::PATIENCE))?;
        let Peer { pid, user } = peer_of(&client)?;
        let opened = Session::open(office, pid, user);
        tracing::info!(pid, user, refused = opened.as_ref().err(), "connected for tokens");
        let session = match opened {
            Ok(session) => session,
            Err(why) => return greet(&client, wire::REFUSED, &why, None),
        };
        greet(&client, wire::TOKENS, "", None)?;
        let serve = move || {
            if let Err(error) = session.serve(client) {
                tracing::info!(pid, user, %error, "disconnected");
            }
        };
        std::thread::Builder::new().name("client".into()).spawn(serve).map(drop)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    fn may_redeem(&self, user: u32) -> bool {
        self.redeemers.contains(&user)
    }

    /// The run of a token, if it is where it was.
    fn redeem(&self, token: Token) -> Result<HostRun, Errno> {
        let entry = self.tokens.get(&token).map(|entry| entry.clone());
        let Entry { asker, run } = entry.ok_or(Errno::NOENT)?;
        let of = Arc::clone(&asker);
        let now = asker.looker.look(move || {
            // If there is more than one run now, it is not the same run.
            let look = || of.memory.runs(run.addr, run.len, 1);
            let mut now = look();
            // The kernel removes even pinned pages from the page table for a moment.
            for _ in 0..ATTEMPTS {
                if now != Err(Errno::AGAIN) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
                now = look();
            }
            now
        });
        match now {
            Ok(now) if now == [run] => Ok(HostRun { addr: HostPhys(run.host), len: run.len }),
            Ok(_) | Err(Errno::NOSPC | Errno::NXIO | Errno::ACCESS) => Err(Errno::STALE),
            Err(errno) => Err(errno),
        }
    }
}

/// One connection. Counted among those of its user until it is dropped.
struct Session {
    office: Arc<Office>,
    user: u32,
    /// `None` if this user may only redeem.
    asker: Option<Arc<Asker>>,
    /// Its tokens, by address and length.
    tokens: BTreeMap<(u64, u64), Own>,
}

impl Session {
    fn open(office: &Arc<Office>, pid: Option<i32>, user: u32) -> Result<Self, String> {
        let trusted = office.may_redeem(user);
        let asks = user == 0 || office.users.contains(&user);
        if !trusted && !asks {
            return Err(format!("user {user} is not one of those that may ask (--user)"));
        }
        let memory = match asks {
            true => Some(Memory::open(pid, user)?),
            false => None,
        };
        let mut books = office.books();
        let alike =
            books.connections.iter().filter(|(user, _)| office.may_redeem(**user) == trusted);
        let all: usize = alike.map(|(_, count)| count).sum();
        let own = books.connections.get(&user).copied().unwrap_or(0);
        if all >= CONNECTIONS || (!trusted && own >= USER_CONNECTIONS) {
            return Err("there are too many connections".into());
        }
        let asker = match memory {
            Some(memory) => Some(Arc::new(Asker { memory, looker: books.looker(user)? })),
            None => None,
        };
        books.connections.insert(user, own + 1);
        drop(books);
        Ok(Self { office: Arc::clone(office), user, asker, tokens: BTreeMap::new() })
    }

    /// Answers requests until the client disconnects, or sends something else.
    fn serve(mut self, mut client: UnixStream) -> io::Result<()> {
        loop {
            let mut bytes = [0; Request::LEN];
            let (first, rest) = bytes.split_at_mut(1);
            client.set_read_timeout(None)?;
            if client.read(first)? == 0 {
                return Ok(());
            }
            client.set_read_timeout(Some(wire::PATIENCE))?;
            client.read_exact(rest)?;
            let answer = match Request::decode(&bytes).ok_or(io::ErrorKind::InvalidData)? {
                Request::Grant { addr, len } => self.grant(addr, len),
                Request::Redeem(token) => self.redeem(token),
                Request::Release { addr, len } => {
                    self.release(addr, len);
                    continue;
                }
            };
            let answer = answer.as_deref().map_err(|errno| *errno);
            client.write_all(&wire::encode_answer(answer))?;
        }
    }

    fn redeem(&self, token: Token) -> Result<Vec<u8>, Errno> {
        if !self.office.may_redeem(self.user) {
            return Err(Errno::PERM);
        }
        self.office.redeem(token).map(|run| wire::encode_run(run).to_vec())
    }

    /// The tokens of a range: those that exist already, and new ones. None is created unless all
    /// can be.
    fn grant(&mut self, addr: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let asker = self.asker.as_ref().ok_or(Errno::PERM)?;
        let runs = asker.memory.runs(addr, len, wire::TOKENS_MAX)?;
        let own = |run: &Run| self.tokens.get(&(run.addr, run.len));
        let kept = |run: &Run| own(run).filter(|own| own.run == *run).map(|own| own.token);
        // All random numbers first, as this can fail.
        let mut fresh = random(runs.iter().filter(|run| kept(run).is_none()).count())?.into_iter();
        // A token of a run that has moved is replaced, and not added.
        let added = runs.iter().filter(|run| own(run).is_none()).count();
        self.office.books().take(self.user, added, self.tokens.len())?;
        let mut tokens = Vec::with_capacity(runs.len());
        for run in runs {
            let kept = self.tokens.get(&(run.addr, run.len)).filter(|own| own.run == run);
            let token = match kept {
                Some(own) => own.token,
                None => {
                    let token = fresh.next().ok_or(Errno::IO)?;
                    self.office.tokens.insert(token, Entry { asker: Arc::clone(asker), run });
                    if let Some(old) = self.tokens.insert((run.addr, run.len), Own { token, run }) {
                        self.office.tokens.remove(&old.token);
                    }
                    token
                }
            };
            tokens.push(HostToken { token, len: run.len });
        }
        Ok(wire::encode_tokens(&tokens))
    }

    /// Releases the tokens of runs inside a range.
    fn release(&mut self, addr: u64, len: u64) {
        let end = addr.saturating_add(len);
        let inside = self.tokens.range((addr, 0)..(end, 0)).map(|(&key, own)| (key, own.token));
        let gone: Vec<_> = inside.filter(|((start, len), _)| start + len <= end).collect();
        for (key, token) in &gone {
            self.tokens.remove(key);
            self.office.tokens.remove(token);
        }
        self.office.books().give_back(self.user, gone.len());
    }
}

impl Books {
    /// Counts `added` tokens of a connection that has `own`.
    ///
    /// # Errors
    /// `ENOSPC` if the connection or the user would have too many.
    fn take(&mut self, user: u32, added: usize, own: usize) -> Result<(), Errno> {
        let held = self.held.entry(user).or_default();
        if own + added > wire::TOKENS_MAX || *held + added > USER_TOKENS {
            return Err(Errno::NOSPC);
        }
        *held += added;
        Ok(())
    }

    fn give_back(&mut self, user: u32, tokens: usize) {
        if let Some(held) = self.held.get_mut(&user) {
            *held = held.saturating_sub(tokens);
        }
    }

    /// The thread that looks at a user's processes; started if there is none.
    fn looker(&mut self, user: u32) -> Result<Looker, String> {
        if let Some(looker) = self.lookers.get(&user) {
            return Ok(looker.clone());
        }
        let looker = Looker::start().map_err(|error| format!("no thread: {error}"))?;
        self.lookers.insert(user, looker.clone());
        Ok(looker)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for own in self.tokens.values() {
            self.office.tokens.remove(&own.token);
        }
        let mut books = self.office.books();
        books.give_back(self.user, self.tokens.len());
        if let Some(count) = books.connections.get_mut(&self.user) {
            *count = count.saturating_sub(1);
        }
    }
}

/// `count` tokens of random bytes.
fn random(count: usize) -> Result<Vec<Token>, Errno> {
    let mut tokens = vec![Token::default(); count];
    let mut rest = tokens.as_flattened_mut();
    while !rest.is_empty() {
        // A long request can return fewer bytes.
        let done = match retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty()))? {
            0 => return Err(Errno::IO),
            done => done,
        };
        rest = rest.get_mut(done..).unwrap_or_default();
    }
    Ok(tokens)
}
