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
use super::inspector::Inspector;
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

/// The number of further inspections of a page that is not in memory, a millisecond apart.
const ATTEMPTS: usize = 20;

type Token = [u8; 16];

/// The issuer of tokens, which also redeems them.
pub(super) struct Issuer {
    users: Vec<u32>,
    redeemers: Vec<u32>,
    /// All tokens. No operation is on more than one of them at a time, so that a user who has many
    /// keeps nobody waiting.
    tokens: DashMap<Token, Target>,
    accounts: Mutex<Accounts>,
}

/// The connections, tokens and inspectors of each user.
#[derive(Default)]
struct Accounts {
    connections: HashMap<u32, usize>,
    tokens: HashMap<u32, usize>,
    inspectors: HashMap<u32, Inspector>,
}

/// The memory that a token stands for.
#[derive(Clone)]
struct Target {
    requester: Arc<Requester>,
    run: Run,
}

/// A process that asks for tokens.
struct Requester {
    memory: Memory,
    inspector: Inspector,
}

/// A token of a connection.
#[derive(Clone, Copy)]
struct OwnToken {
    token: Token,
    run: Run,
}

impl Issuer {
    pub(super) fn new(users: Vec<u32>, mut redeemers: Vec<u32>) -> Arc<Self> {
        // Three descriptors for each connection can exceed the usual limit.
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        {
            tracing::debug!(%error, "cannot raise the limit of open descriptors");
        }
        redeemers.extend([0, geteuid().as_raw()]);
        Arc::new(Self { users, redeemers, tokens: DashMap::new(), accounts: Mutex::default() })
    }

    /// Serves one client, in a thread of its own.
    pub(super) fn receive(issuer: &Arc<Self>, client: UnixStream) -> io::Result<()> {
        client.set_write_timeout(Some(wire::PATIENCE))?;
        let Peer { pid, user } = peer_of(&client)?;
        let opened = Session::open(issuer, pid, user);
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

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock()
    }

    fn may_redeem(&self, user: u32) -> bool {
        self.redeemers.contains(&user)
    }

    /// The run of a token, if it is where it was.
    fn redeem(&self, token: Token) -> Result<HostRun, Errno> {
        let target = self.tokens.get(&token).map(|target| target.clone());
        let Target { requester, run } = target.ok_or(Errno::NOENT)?;
        let of = Arc::clone(&requester);
        let now = requester.inspector.inspect(move || {
            // If there is more than one run now, it is not the same run.
            let inspect = || of.memory.runs(run.addr, run.len, 1);
            let mut now = inspect();
            // The kernel removes even pinned pages from the page table for a moment.
            for _ in 0..ATTEMPTS {
                if now != Err(Errno::AGAIN) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
                now = inspect();
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
    issuer: Arc<Issuer>,
    user: u32,
    /// `None` if this user may only redeem.
    requester: Option<Arc<Requester>>,
    /// Its tokens, by address and length.
    tokens: BTreeMap<(u64, u64), OwnToken>,
}

impl Session {
    fn open(issuer: &Arc<Issuer>, pid: Option<i32>, user: u32) -> Result<Self, String> {
        let trusted = issuer.may_redeem(user);
        let asks = user == 0 || issuer.users.contains(&user);
        if !trusted && !asks {
            return Err(format!("user {user} is not one of those that may ask (--user)"));
        }
        let memory = match asks {
            true => Some(Memory::open(pid, user)?),
            false => None,
        };
        let mut accounts = issuer.accounts();
        let alike =
            accounts.connections.iter().filter(|(user, _)| issuer.may_redeem(**user) == trusted);
        let all: usize = alike.map(|(_, count)| count).sum();
        let own = accounts.connections.get(&user).copied().unwrap_or(0);
        if all >= CONNECTIONS || (!trusted && own >= USER_CONNECTIONS) {
            return Err("there are too many connections".into());
        }
        let requester = match memory {
            Some(memory) => {
                Some(Arc::new(Requester { memory, inspector: accounts.inspector(user)? }))
            }
            None => None,
        };
        accounts.connections.insert(user, own + 1);
        drop(accounts);
        Ok(Self { issuer: Arc::clone(issuer), user, requester, tokens: BTreeMap::new() })
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
        if !self.issuer.may_redeem(self.user) {
            return Err(Errno::PERM);
        }
        self.issuer.redeem(token).map(|run| wire::encode_run(run).to_vec())
    }

    /// The tokens of a range: those that exist already, and new ones. None is created unless all
    /// can be.
    fn grant(&mut self, addr: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let requester = self.requester.as_ref().ok_or(Errno::PERM)?;
        let runs = requester.memory.runs(addr, len, wire::TOKENS_MAX)?;
        let own = |run: &Run| self.tokens.get(&(run.addr, run.len));
        let kept = |run: &Run| own(run).filter(|own| own.run == *run).map(|own| own.token);
        // All random numbers first, as this can fail.
        let mut fresh = random(runs.iter().filter(|run| kept(run).is_none()).count())?.into_iter();
        // A token of a run that has moved is replaced, and not added.
        let added = runs.iter().filter(|run| own(run).is_none()).count();
        self.issuer.accounts().add_tokens(self.user, added, self.tokens.len())?;
        let mut tokens = Vec::with_capacity(runs.len());
        for run in runs {
            let kept = self.tokens.get(&(run.addr, run.len)).filter(|own| own.run == run);
            let token = match kept {
                Some(own) => own.token,
                None => {
                    let token = fresh.next().ok_or(Errno::IO)?;
                    self.issuer
                        .tokens
                        .insert(token, Target { requester: Arc::clone(requester), run });
                    if let Some(old) =
                        self.tokens.insert((run.addr, run.len), OwnToken { token, run })
                    {
                        self.issuer.tokens.remove(&old.token);
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
            self.issuer.tokens.remove(token);
        }
        self.issuer.accounts().remove_tokens(self.user, gone.len());
    }
}

impl Accounts {
    /// Counts `added` tokens of a connection that has `own`.
    ///
    /// # Errors
    /// `ENOSPC` if the connection or the user would have too many.
    fn add_tokens(&mut self, user: u32, added: usize, own: usize) -> Result<(), Errno> {
        let tokens = self.tokens.entry(user).or_default();
        if own + added > wire::TOKENS_MAX || *tokens + added > USER_TOKENS {
            return Err(Errno::NOSPC);
        }
        *tokens += added;
        Ok(())
    }

    fn remove_tokens(&mut self, user: u32, removed: usize) {
        if let Some(tokens) = self.tokens.get_mut(&user) {
            *tokens = tokens.saturating_sub(removed);
        }
    }

    /// The inspector of a user's processes; started if there is none.
    fn inspector(&mut self, user: u32) -> Result<Inspector, String> {
        if let Some(inspector) = self.inspectors.get(&user) {
            return Ok(inspector.clone());
        }
        let inspector = Inspector::start().map_err(|error| format!("no thread: {error}"))?;
        self.inspectors.insert(user, inspector.clone());
        Ok(inspector)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for own in self.tokens.values() {
            self.issuer.tokens.remove(&own.token);
        }
        let mut accounts = self.issuer.accounts();
        accounts.remove_tokens(self.user, self.tokens.len());
        if let Some(count) = accounts.connections.get_mut(&self.user) {
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
