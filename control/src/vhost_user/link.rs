//! One connection to a back-end: the handshake, and the queue pairs that it led to.

use crate::chardev::Stream;
use crate::nic::{Connection, Read};
use crate::reactor::{Interest, Reactor, Ready, Timer, Token};
use engine::backend::driver::{Halves, OpenError, Opened, Report, Shape, choose, open};
use engine::vhost::{Frontend, Heard, Message, ProtocolError, Reader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Messages of one back-end handled in one go.
const MESSAGES: usize = 64;
/// The role of the channel among a netdev's descriptors; its socket has 0.
const CHANNEL: u8 = 1;
/// The role of the time limit.
const LIMIT: u8 = 2;

/// Longest wait for an answer of the handshake. Shorter than this is what a back-end may need that maps much memory; longer is what
/// nobody waits for who asks why there is no network.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The back-end has gone.
    #[error("the back-end has gone")]
    Gone,
    /// It does not keep to the protocol, or refused something.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// It does not go on with the handshake.
    #[error("the back-end has not answered {0} for {1:?}")]
    Silent(String, Duration),
    /// It has fewer queues than were asked for.
    #[error("you are asking more queues than supported: {0}")]
    Queues(u16),
    /// There is no memory for the rings.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The kernel watches no more.
    #[error("its connection cannot be watched: {0}")]
    Watch(nix::Error),
}

/// A connection.
pub(super) struct Link {
    connection: Connection,
    frontend: Frontend,
    /// Queue pairs asked for.
    pairs: u16,
    /// Written to by a worker that stops a ring.
    wake: Arc<OwnedFd>,
    /// Virtio features that the back-end offered, and those that were accepted.
    pub(super) features: Option<(u64, u64)>,
    /// Queue pairs, until they go to workers.
    made: Vec<Halves>,
    /// What is kept of each pair, by ring.
    pub(super) reports: Vec<[Arc<Report>; 2]>,
    /// Entries of each ring.
    pub(super) sizes: Vec<u16>,
    /// Whether the device's link is up, as its back-end last told.
    pub(super) up: bool,
    /// Where the back-end says what it has to say by itself.
    channel: Option<Connection>,
    /// Fires when the back-end owes an answer for too long; none when the handshake is over.
    limit: Option<(Timer, Duration)>,
    token: Token,
}

/// What reading came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// All rings are in force at the back-end, and [`Link::take_pairs`] has the queue pairs.
    pub(super) ready: bool,
    /// [`Link::up`] may have changed.
    pub(super) link: bool,
}

impl Link {
    /// A connection that has just been made; the first question is sent. Each answer of the handshake must come within `limit`.
    pub(super) fn new(
        stream: Stream,
        token: Token,
        reactor: &Reactor,
        pairs: u16,
        wake: Arc<OwnedFd>,
        limit: Duration,
    ) -> Result<Self, End> {
        let timer = Timer::new().map_err(End::Watch)?;
        reactor.watch(&timer, Token { role: LIMIT, ..token }, Interest::READ).map_err(End::Watch)?;
        timer.set(limit).map_err(End::Watch)?;
        let connection = Connection::new(stream, Reader::of_answers(), token, reactor).map_err(End::Watch)?;
        let mut this = Self {
            connection,
            frontend: Frontend::new(),
            pairs,
            wake,
            features: None,
            made: Vec::new(),
            reports: Vec::new(),
            sizes: Vec::new(),
            up: true,
            channel: None,
            limit: Some((timer, limit)),
            token,
        };
        this.send(reactor)?;
        Ok(this)
    }

    /// Handles what happened to the socket, or to the channel.
    pub(super) fn serve(&mut self, ready: &Ready, reactor: &Reactor) -> Result<News, End> {
        let mut news = News::default();
        if ready.token.role == LIMIT {
            return self.in_time().map(|()| news);
        }
        if ready.token.role == CHANNEL {
            self.listen(reactor);
            return self.send(reactor).map(|()| news);
        }
        if ready.write && !self.connection.flush(reactor) {
            return Err(End::Gone);
        }
        for _ in 0..MESSAGES {
            match self.connection.read() {
                Read::Message(message) => self.hear(&message, &mut news, reactor)?,
                Read::Later => break,
                Read::End => return Err(End::Gone),
                Read::Bad(error) => return Err(error.into()),
            }
            self.send(reactor)?;
        }
        self.send(reactor)?;
        Ok(news)
    }

    /// The limit has passed, unless an answer came in the meantime.
    fn in_time(&self) -> Result<(), End> {
        match &self.limit {
            Some((timer, limit)) if timer.acknowledge() => {
                Err(End::Silent(self.frontend.due().unwrap_or_default(), *limit))
            }
            _ => Ok(()),
        }
    }

    /// Takes what the back-end says by itself. A channel that ends is of no more use; the connection goes on.
    fn listen(&mut self, reactor: &Reactor) {
        let Some(channel) = &mut self.channel else { return };
        for _ in 0..MESSAGES {
            let Read::Message(message) = channel.read() else { break };
            let answer = self.frontend.wish(&message);
            if answer.is_some_and(|answer| !channel.reply(answer, reactor)) {
                break;
            }
        }
    }

    /// A channel: our end is kept, the other one is for the back-end. None where no descriptor is left: the link state is then that of the start.
    fn open_channel(&mut self, reactor: &Reactor) -> Option<OwnedFd> {
        let (ours, theirs) = UnixStream::pair().ok()?;
        let stream = Stream::unix(ours, false, None).ok()?;
        let token = Token { role: CHANNEL, ..self.token };
        self.channel = Some(Connection::new(stream, Reader::new(), token, reactor).ok()?);
        Some(theirs.into())
    }

    /// Sends what may be sent now.
    fn send(&mut self, reactor: &Reactor) -> Result<(), End> {
        while !self.connection.waits() {
            let Some(request) = self.frontend.request()? else { break };
            if !self.connection.reply(request, reactor) {
                return Err(End::Gone);
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: &Message, news: &mut News, reactor: &Reactor) -> Result<(), End> {
        let heard = self.frontend.answer(message)?;
        if let Some((timer, limit)) = &self.limit {
            timer.set(*limit).map_err(End::Watch)?;
        }
        match heard {
            None => {}
            Some(Heard::Ready) => {
                self.limit = None;
                news.ready = true;
            }
            Some(Heard::Link(up)) => {
                self.up = up;
                news.link = true;
            }
            Some(Heard::Offer { pairs, .. }) if pairs < self.pairs => return Err(End::Queues(pairs)),
            Some(Heard::Offer { features: offered, .. }) => {
                let accepted = choose(offered, self.pairs);
                let Opened { pairs, rings, region, file, hugepages, .. } =
                    open(&Shape::new(accepted, self.pairs), true, &self.wake, None)?;
                if !hugepages {
                    tracing::warn!(
                        "the rings of a vhost-user netdev lie in ordinary memory: not enough free hugepages (see vm.nr_hugepages)"
                    );
                }
                self.features = Some((offered, accepted));
                self.reports = pairs.iter().map(|pair| pair.reports.clone()).collect();
                self.sizes = rings.iter().map(|ring| ring.size).collect();
                self.made = pairs;
                let channel = self.open_channel(reactor);
                self.frontend.set_up(accepted, &region, file, &rings, channel);
            }
        }
        Ok(())
    }

    /// The queue pairs; once.
    pub(super) fn take_pairs(&mut self) -> Vec<Halves> {
        std::mem::take(&mut self.made)
    }
}
