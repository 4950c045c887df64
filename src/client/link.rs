//! The task behind a client: owns the connection to the leader, and finds another when it must.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::asks::{Ask, Refusals};
use super::core::Core;
use super::directory::Directory;
use super::error::Error;
use super::records::Batch;
use super::search::{Found, Search, Wanted};
use crate::net::{ClientConnection, Identity, NodeStatus, Request, RequestBody, ResponseBody};
use crate::random::Random;
use crate::types::Term;

/// A leader that owes answers and says nothing for this long may be dead: others are asked, beside it.
const SILENCE: Duration = Duration::from_millis(250);
/// A node that passes on what it is given, and does not even say what it is for this long, stands still: another is as
/// good.
const STANDSTILL: Duration = Duration::from_millis(1000);
/// How long a node that leads no more may take to answer what is under way.
const FAREWELL: Duration = Duration::from_millis(200);
/// How often a leader is asked who belongs to the cluster: when it is gone, this client must know the others.
const REFRESH: Duration = Duration::from_secs(1);
/// Messages of callers taken at once.
const MESSAGES_MAX: usize = 256;

/// What callers ask of the task.
#[derive(Debug)]
pub(super) enum Message {
    Submit(Batch),
    Ask(Ask),
    /// To be told when there is a leader, or that there cannot be one.
    Reach(oneshot::Sender<Result<(), Error>>),
}

#[derive(Debug)]
pub(super) struct Link {
    core: Core,
    messages: mpsc::UnboundedReceiver<Message>,
    /// Taken from `messages` and not yet looked at.
    taken: Vec<Message>,
    /// No caller is left.
    is_closed: bool,
    /// Those who wait for a leader. Bounded by those who connect at once: one for each client.
    reaching: Vec<oneshot::Sender<Result<(), Error>>>,
    identity: Arc<Identity>,
    directory: Directory,
    /// What kind of node requests are carried to.
    wanted: Wanted,
    random: Random,
}

impl Link {
    pub fn new(
        core: Core,
        messages: mpsc::UnboundedReceiver<Message>,
        identity: Arc<Identity>,
        directory: Directory,
        wanted: Wanted,
        random: Random,
    ) -> Link {
        let (taken, reaching) = (Vec::new(), Vec::new());
        Link { core, messages, taken, is_closed: false, reaching, identity, directory, wanted, random }
    }

    /// Until no caller is left and nobody waits for anything.
    pub async fn run(mut self) {
        let mut found = self.find(None).await;
        while let Some(node) = found {
            self.core.on_connected();
            for waiting in self.reaching.drain(..) {
                // It may have waited long enough.
                let _ = waiting.send(Ok(()));
            }
            found = match self.serve(node).await {
                Served::Replaced(node) => Some(node),
                Served::Lost => {
                    let hint = self.core.deposed().and_then(|deposed| deposed.leader);
                    self.find(hint).await
                }
                Served::Done => None,
            };
        }
    }

    /// Looks for a node that serves; `None` if nobody needs one any more.
    async fn find(&mut self, hint: Option<SocketAddr>) -> Option<Found> {
        let mut search = self.search(hint, (None, None));
        loop {
            if self.is_over() {
                return None;
            }
            let wake = self.wake_at(None);
            tokio::select! {
                found = search.next() => match found {
                    Ok(node) => return Some(node),
                    Err(error) => self.give_up(error),
                },
                () = sleep_until(wake) => {
                    if let Some(reason) = search.reason() {
                        self.core.on_unreachable(Error::Unavailable { reason });
                    }
                    self.expire();
                }
                count = self.messages.recv_many(&mut self.taken, MESSAGES_MAX), if !self.is_closed => {
                    self.take_messages(count);
                }
            }
        }
    }

    /// Carries requests to a node as long as it serves and answers.
    async fn serve(&mut self, node: Found) -> Served {
        let Found { connection, mut responses, mut term } = node;
        let mut outgoing: Option<Request> = None;
        let mut silence = Silence::default();
        let mut rescue: Option<Search> = None;
        // The rescue asks nodes of this term, too, and not this one.
        let mut is_left = false;
        let mut refresh = Refresh::due_at(Instant::now() + REFRESH);
        loop {
            let now = Instant::now();
            refresh.ask_if_due(&mut self.core, now);
            if outgoing.is_none() {
                outgoing = self.core.next_request(now);
            }
            silence.observe(self.core.is_waiting_for_answers(), self.core.deposed().is_some(), now);
            if self.is_over() {
                return Served::Done;
            }
            if silence.is_farewell_over(now) {
                return self.lost(None);
            }
            match silence.is_long(now) {
                true if rescue.is_none() => {
                    refresh.hasten(now);
                    rescue = Some(self.search(None, (Some(term), None)));
                }
                true if !is_left && self.wanted == Wanted::AnyThatKnowsLeader && silence.is_standstill(now) => {
                    is_left = true;
                    rescue = Some(self.search(None, (None, Some(connection.address()))));
                }
                true => {}
                false => (rescue, is_left) = (None, false),
            }
            let wake = self.wake_at([silence.next(now), refresh.next()].into_iter().flatten().min());
            tokio::select! {
                response = responses.next() => {
                    let Ok(response) = response else { return self.lost(response.err().map(Error::from_connection)) };
                    let now = Instant::now();
                    silence.heard(now);
                    if self.core.on_response(response, now).is_err() {
                        return self.lost(Some(Error::WrongAnswer));
                    }
                }
                sent = send(&connection, &outgoing) => match sent {
                    Ok(()) => outgoing = None,
                    Err(error) => return self.lost(Some(error)),
                },
                count = self.messages.recv_many(&mut self.taken, MESSAGES_MAX), if !self.is_closed => {
                    self.take_messages(count);
                }
                status = refresh.answer() => {
                    if let Some(status) = status.filter(|status| self.wanted.fits(status)) {
                        term = term.max(status.term);
                        self.directory.learn(&status, connection.address());
                    }
                }
                node = found(&mut rescue) => {
                    self.core.on_lost(None);
                    return Served::Replaced(node);
                }
                () = sleep_until(wake) => self.expire(),
            }
        }
    }

    fn lost(&mut self, reason: Option<Error>) -> Served {
        if let Some(reason) = &reason {
            tracing::debug!("the connection to the leader is lost: {reason}");
        }
        self.core.on_lost(reason);
        Served::Lost
    }

    fn take_messages(&mut self, count: usize) {
        self.is_closed = count == 0;
        for message in self.taken.drain(..) {
            match message {
                Message::Submit(batch) => self.core.submit(batch),
                Message::Ask(ask) => self.core.ask(ask),
                Message::Reach(sender) => self.reaching.push(sender),
            }
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        self.core.end_pause(now);
        self.core.expire(now);
    }

    /// Waiting cannot help those who wait now. Others may have more luck, after somebody looked at the certificates.
    fn give_up(&mut self, error: Error) {
        for waiting in self.reaching.drain(..) {
            // It may have waited long enough.
            let _ = waiting.send(Err(error.clone()));
        }
        self.core.on_unreachable(error);
    }

    fn is_over(&self) -> bool {
        self.is_closed && self.core.is_idle()
    }

    /// For a node in a term above, if that is said, and elsewhere than there.
    fn search(&mut self, hint: Option<SocketAddr>, limits: (Option<Term>, Option<SocketAddr>)) -> Search {
        let wanted = self.wanted;
        Search::start(self.identity.clone(), self.directory.clone(), wanted, hint, limits, self.random.fork())
    }

    fn wake_at(&self, other: Option<Instant>) -> Option<Instant> {
        [self.core.wake_at(), other].into_iter().flatten().min()
    }
}

/// Why a connection is served no more.
enum Served {
    Lost,
    Replaced(Found),
    Done,
}

/// The question to the leader that is asked from time to time.
#[derive(Debug)]
struct Refresh {
    due: Instant,
    /// While it was asked and not answered.
    asked: Option<oneshot::Receiver<Result<ResponseBody, Error>>>,
    /// It waits in the queue of questions, and takes no room that callers share.
    room: Arc<Semaphore>,
}

impl Refresh {
    fn due_at(due: Instant) -> Refresh {
        Refresh { due, asked: None, room: Arc::new(Semaphore::new(1)) }
    }

    fn ask_if_due(&mut self, core: &mut Core, now: Instant) {
        if self.asked.is_some() || now < self.due {
            return;
        }
        let Ok(room) = self.room.clone().try_acquire_owned() else { return };
        let (sender, receiver) = oneshot::channel();
        core.ask(Ask {
            body: RequestBody::Status,
            deadline: now + REFRESH,
            sender,
            room,
            refusals: Refusals::default(),
        });
        self.asked = Some(receiver);
    }

    /// Whether it answers at all is to be known soon.
    fn hasten(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    fn next(&self) -> Option<Instant> {
        self.asked.is_none().then_some(self.due)
    }

    /// Loses nothing if cancelled.
    async fn answer(&mut self) -> Option<NodeStatus> {
        let Some(asked) = &mut self.asked else { return std::future::pending().await };
        let answer = asked.await;
        *self = Refresh::due_at(Instant::now() + REFRESH);
        match answer {
            Ok(Ok(ResponseBody::Status(status))) => Some(*status),
            _ => None,
        }
    }
}

/// How long answers have been owed without a word.
#[derive(Debug, Default)]
struct Silence {
    /// Since when; `None` while nothing is owed.
    since: Option<Instant>,
    /// When the node is left: it leads no more.
    farewell: Option<Instant>,
}

impl Silence {
    fn observe(&mut self, is_owed: bool, is_deposed: bool, now: Instant) {
        self.since = is_owed.then(|| self.since.unwrap_or(now));
        if is_deposed {
            let until = if is_owed { now + FAREWELL } else { now };
            self.farewell = Some(self.farewell.unwrap_or(until).min(until));
        }
    }

    fn heard(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }

    fn is_long(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now >= since + SILENCE)
    }

    fn is_standstill(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now >= since + STANDSTILL)
    }

    fn is_farewell_over(&self, now: Instant) -> bool {
        self.farewell.is_some_and(|until| now >= until)
    }

    fn next(&self, now: Instant) -> Option<Instant> {
        let silent = self.since.into_iter().flat_map(|since| [since + SILENCE, since + STANDSTILL]);
        silent.filter(|at| now < *at).chain(self.farewell).min()
    }
}

/// Loses nothing if cancelled: a request is queued or it is not.
async fn send(connection: &ClientConnection, outgoing: &Option<Request>) -> Result<(), Error> {
    match outgoing {
        Some(request) => connection.send(request).await.map_err(Error::from_connection),
        None => std::future::pending().await,
    }
}

/// A node found beside one that is silent. That certificates do not fit elsewhere says nothing new.
async fn found(rescue: &mut Option<Search>) -> Found {
    if let Some(search) = rescue {
        loop {
            if let Ok(node) = search.next().await {
                return node;
            }
        }
    }
    std::future::pending().await
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
