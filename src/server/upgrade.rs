//! Replaces this process by a new one of its program.
//!
//! Until [`Proven::commit`] this process serves as before, and whatever goes wrong leaves it so.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::service_manager::{Message, tell};
use crate::admission::penalties;
use crate::config::checked::{Config, NewerList};
use crate::control::earlier::{MAX, exchange};
use crate::control::{Answer, Context, Request, Upgraded, rfc3339};
use crate::handover::{
    Channel, Connected, Counters, LaunchError, Launched, Launcher, Penalty, Process, State, ToPredecessor, ToSuccessor,
    Told, Unavailable, pair,
};
use crate::notify;
use crate::telemetry::log::Event;

/// How long the new process may take until it is ready: it reads everything that a start reads.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take from then until it accepts connections, which takes milliseconds.
const SERVING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the reason is waited for when it has closed the channel: it ends.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// For data that the new process reads at once.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a new process needs of this one.
pub(super) struct Replaceable {
    context: Arc<Context>,
    launcher: Result<Connected, Unavailable>,
    /// The listener of the metrics, and its address in the configuration.
    pub(super) metrics: Option<(SocketAddr, OwnedFd)>,
    pub(super) control: Option<(PathBuf, OwnedFd)>,
}

/// A new process that accepts connections.
pub(super) struct Proven<'a> {
    launched: Launched<'a>,
    channel: Channel,
    version: String,
    /// The configuration when it was started.
    config: Arc<Config>,
    /// The lists that it has.
    lists: Vec<Arc<NewerList>>,
}

/// A process that was replaced.
pub(super) struct Replaced {
    /// The channel to the new one.
    pub(super) channel: Channel,
    /// When the sessions that stay here are cut.
    pub(super) until: Instant,
    pub(super) answer: Upgraded,
}

impl Replaceable {
    pub(super) fn new(context: Arc<Context>, launcher: Result<Launcher, Unavailable>) -> Self {
        let connected = launcher.and_then(Launcher::connect);
        Self { context, launcher: connected, metrics: None, control: None }
    }

    /// Starts the new process, and waits until it accepts connections.
    ///
    /// # Errors
    /// Why it does not, as a message.
    pub(super) async fn start_successor(&mut self) -> Result<Proven<'_>, String> {
        if self.context.earlier.all().len() >= MAX {
            return Err(format!(
                "{MAX} processes of earlier upgrades still have open connections\n  wait until they end, which doorward status \
                 shows, or end their connections: doorward cut --all"
            ));
        }
        let launcher = self.launcher.as_mut().map_err(|why| why.to_string())?;
        let failed = |error: io::Error| format!("no process could be started: {error}");
        let (near, far) = pair().map_err(failed)?;
        let channel = Channel::new(near).map_err(failed)?;
        let config = Arc::clone(&self.context.reloader.current().borrow().config);
        let launched = launcher.launch(far).await.map_err(|error| error.to_string())?;
        let sockets =
            Sockets { context: &self.context, metrics: self.metrics.as_ref(), control: self.control.as_ref() };
        let outcome = tokio::select! {
            outcome = sockets.hand_over(&channel) => outcome,
            ended = launched.ended() => return Err(ended_early(ended)),
        };
        match outcome {
            Ok((version, lists)) => Ok(Proven { launched, channel, version, config, lists }),
            Err(error) => {
                // If it has closed the channel, it says why on stderr and ends.
                let ended = match error.kind() {
                    io::ErrorKind::TimedOut => None,
                    _ => timeout(END_TIMEOUT, launched.ended()).await.ok(),
                };
                if let Some(ended) = ended {
                    return Err(ended_early(ended));
                }
                Err(match launched.kill().await {
                    Ok(status) => format!("the new process was killed, because {error} ({status})"),
                    Err(failed) => format!("the new process has failed, because {error}, and may still run: {failed}"),
                })
            }
        }
    }
}

fn ended_early(ended: Result<String, LaunchError>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| format!("the new process has ended: {status}"))
}

/// The sockets of this process.
struct Sockets<'a> {
    context: &'a Context,
    metrics: Option<&'a (SocketAddr, OwnedFd)>,
    control: Option<&'a (PathBuf, OwnedFd)>,
}

impl Sockets<'_> {
    /// Hands over sockets, lists and state. Returns the release of the new process, and the lists.
    async fn hand_over(&self, channel: &Channel) -> io::Result<(String, Vec<Arc<NewerList>>)> {
        let late = |what| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
        let ready = async {
            self.offer(channel).await?;
            match channel.receive().await? {
                Some((ToPredecessor::Ready { version }, _)) => Ok(version),
                Some(_) => Err(io::Error::other("it sends another message than expected")),
                None => Err(io::Error::other("it has closed the channel")),
            }
        };
        let seconds = READY_TIMEOUT.as_secs();
        let version = timeout(READY_TIMEOUT, ready)
            .await
            .map_err(late(format!("it was not ready within {seconds} seconds")))??;
        let serving = async {
            let lists = self.context.reloader.received();
            hand_over_lists(channel, &lists).await?;
            let state = serde_json::to_string(&state(self.context)).map_err(io::Error::other)?;
            send_text(channel, &ToSuccessor::Go, &state).await?;
            match channel.receive().await? {
                Some((ToPredecessor::Serving, _)) => Ok(lists),
                _ => Err(io::Error::other("it does not accept connections")),
            }
        };
        let seconds = SERVING_TIMEOUT.as_secs();
        let late = late(format!("it did not accept connections within {seconds} seconds"));
        Ok((version, timeout(SERVING_TIMEOUT, serving).await.map_err(late)??))
    }

    async fn offer(&self, channel: &Channel) -> io::Result<()> {
        let listeners = self.context.reloader.current().borrow().listeners.clone();
        for listener in &listeners {
            let (name, address) = (listener.name().to_string(), listener.configured());
            let message = ToSuccessor::Listener { name, address, passed: listener.is_passed() };
            channel.send(&message, Some(listener.socket())).await?;
        }
        if let Some((address, socket)) = self.metrics {
            channel.send(&ToSuccessor::Metrics { address: *address }, Some(socket.as_fd())).await?;
        }
        if let Some((path, socket)) = self.control {
            channel.send(&ToSuccessor::Control { path: path.clone() }, Some(socket.as_fd())).await?;
        }
        channel.send(&ToSuccessor::Stderr, Some(io::stderr().as_fd())).await?;
        channel.send(&ToSuccessor::Offered, None).await
    }
}

/// What the new process takes over besides sockets.
fn state(context: &Context) -> State {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let penalty = |penalties::Penalty { source, settled, banned, bans }| Penalty {
        source: source.parts(),
        settled: nanoseconds(settled),
        banned: nanoseconds(banned),
        bans,
    };
    let told = |notify::Told { receiver, event, subject, ago }| Told {
        receiver,
        event: event.label().to_owned(),
        subject,
        ago: nanoseconds(ago),
    };
    State {
        told: context.gate.notices.told().into_iter().map(told).collect(),
        first_id: context.gate.first_id_of_successor(),
        penalties: context.gate.admission.penalties().into_iter().map(penalty).collect(),
    }
}

/// Puts lists in force in the new process that came over the control socket: its files may not have them.
async fn hand_over_lists(channel: &Channel, lists: &[Arc<NewerList>]) -> io::Result<()> {
    for list in lists {
        let (Some(authority), list) = (&list.authority, &list.list.list) else { continue };
        let (stream, theirs) = UnixStream::pair()?;
        channel.send(&ToSuccessor::Request, Some(theirs.as_fd())).await?;
        drop(theirs);
        let request = Request::TakeList { authority_bytes: authority.len(), list_bytes: list.len() };
        match exchange(stream, &request, &[authority, list]).await? {
            // Or refused, because it has a newer one, or its configuration no longer trusts the authority.
            Answer::ListTaken(_) | Answer::Error(_) => {}
            _ => return Err(io::Error::other("it gives the answer to another request")),
        }
    }
    Ok(())
}

/// Sends a message with a stream of which the other process reads `text`.
pub(super) async fn send_text(channel: &Channel, message: &ToSuccessor, text: &str) -> io::Result<()> {
    let (mut stream, theirs) = UnixStream::pair()?;
    channel.send(message, Some(theirs.as_fd())).await?;
    drop(theirs);
    timeout(WRITE_TIMEOUT, stream.write_all(text.as_bytes())).await.map_err(|_| io::ErrorKind::TimedOut)?
}

impl Proven<'_> {
    /// Makes the new process the gate. This one has stopped accepting connections.
    pub(super) async fn commit(self, context: &Context) -> Replaced {
        let Self { launched, channel, version, config, lists } = self;
        let gate = &context.gate;
        let pid = launched.pid;
        // Before the service manager is told: with its launcher gone, the new process is a child of the service manager.
        launched.release().await;
        tell(Message::Replaced { by: pid }).await;
        let drain = gate.snapshot.load().timeouts.drain;
        let process = Process {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: context.facts.since,
            until: OffsetDateTime::now_utc() + drain,
        };
        let until = rfc3339(process.until);
        let sessions = gate.sessions.count();
        gate.log.event(&Event::Upgraded {
            pid,
            version: version.clone(),
            sessions_kept: sessions,
            until: until.clone(),
        });
        let answer =
            Upgraded { pid, version, earlier_pid: process.pid, earlier_sessions: sessions, earlier_until: until };
        // If the new process ends meanwhile, these fail, and this one notices that when it serves it.
        for earlier in context.earlier.hand_over() {
            let message = ToSuccessor::Earlier(earlier.process.clone());
            let _ = channel.send(&message, Some(earlier.channel().as_fd())).await;
        }
        let since: Vec<_> = context.reloader.received();
        let new: Vec<_> =
            since.into_iter().filter(|list| !lists.iter().any(|other| Arc::ptr_eq(list, other))).collect();
        let _ = hand_over_lists(&channel, &new).await;
        let (ended, running) = gate.metrics.take_earlier();
        let counters = Counters { own: gate.metrics.render(), ended, running };
        let counters = serde_json::to_string(&counters).unwrap_or_default();
        let reload = !Arc::ptr_eq(&config, &context.reloader.current().borrow().config);
        let _ = send_text(&channel, &ToSuccessor::Committed { process, reload }, &counters).await;
        Replaced { channel, until: Instant::now() + drain, answer }
    }
}
