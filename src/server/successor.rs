//! The new process of an upgrade: takes over from the gate that runs.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Server, StartError};
use crate::admission::penalties;
use crate::control::Context;
use crate::control::earlier::read_all;
use crate::handover::{Channel, Counters, Penalty, Predecessor, State, ToPredecessor, ToSuccessor, Told};
use crate::model::notice::NoticeEvent;
use crate::model::source::{Prefixes, Source};
use crate::notify;
use crate::reload::Trigger;

/// How long the end of the hand-over is waited for. It takes milliseconds.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

impl Server {
    /// If this process replaces a gate: tells it that everything is bound, and takes what it has to hand over. Nothing has
    /// changed for clients when this returns.
    ///
    /// # Errors
    /// If that gate has ended the upgrade.
    pub async fn take_over(&mut self) -> Result<(), StartError> {
        let Some(predecessor) = self.predecessor.take() else { return Ok(()) };
        self.channel = Some(take_over(predecessor, &self.context).await.map_err(StartError::HandOver)?);
        Ok(())
    }
}

async fn take_over(predecessor: Predecessor, context: &Arc<Context>) -> io::Result<Channel> {
    let channel = predecessor.ready().await?;
    loop {
        match channel.receive().await? {
            Some((ToSuccessor::Request, Some(stream))) => serve(context, stream),
            Some((ToSuccessor::Go, Some(stream))) => {
                let state = serde_json::from_str(&read_all(stream.into()).await?)?;
                apply(context, state);
                return Ok(channel);
            }
            Some(_) => return Err(io::Error::other("it sends another message than expected")),
            None => return Err(io::Error::other("it has ended the upgrade")),
        }
    }
}

/// Says that connections are accepted, and waits until the other process has stopped accepting them. If that one dies, this is
/// the gate nevertheless.
pub(super) async fn serving(channel: Channel, context: &Arc<Context>) {
    // If this fails, so does what follows.
    let _ = channel.send(&ToPredecessor::Serving, None).await;
    let _ = timeout(COMMIT_TIMEOUT, committed(channel, context)).await;
}

async fn committed(channel: Channel, context: &Arc<Context>) -> io::Result<()> {
    loop {
        match channel.receive().await? {
            Some((ToSuccessor::Request, Some(stream))) => serve(context, stream),
            Some((ToSuccessor::Earlier(process), Some(end))) => {
                context.earlier.add(process, Channel::new(end)?, "");
            }
            Some((ToSuccessor::Committed { process, reload }, Some(stream))) => {
                // Without them, the counters begin at 0.
                let counters = read_all(stream.into()).await.unwrap_or_default();
                let Counters { own, ended, running } = serde_json::from_str(&counters).unwrap_or_default();
                context.gate.metrics.put_earlier(&ended);
                for (process, counters) in running {
                    context.gate.metrics.count_earlier_if_running(process, &counters);
                }
                context.earlier.add(process, channel, &own);
                if reload {
                    let _ = context.reloader.reload(Trigger::Watch).await;
                }
                return Ok(());
            }
            Some(_) => return Err(io::Error::other("it sends another message than expected")),
            None => return Err(io::Error::other("it has ended")),
        }
    }
}

/// Answers a request of the other process.
fn serve(context: &Arc<Context>, stream: OwnedFd) {
    let stream = StdUnixStream::from(stream);
    let context = Arc::clone(context);
    if stream.set_nonblocking(true).is_ok()
        && let Ok(stream) = UnixStream::from_std(stream)
    {
        tokio::spawn(async move { context.serve(stream, true).await });
    }
}

fn apply(context: &Context, state: State) {
    let State { first_id, penalties, told } = state;
    for Told { receiver, event, subject, ago } in told {
        // An earlier release may have told what this one does not know.
        if let Some(event) = NoticeEvent::ALL.into_iter().find(|known| known.label() == event) {
            context.gate.notices.add_told(notify::Told { receiver, event, subject, ago: Duration::from_nanos(ago) });
        }
    }
    context.gate.continue_ids(first_id);
    context.gate.admission.add_penalties(penalties.into_iter().map(
        |Penalty { source: (address, bits), settled, banned, bans }| penalties::Penalty {
            source: Source::of(address, Prefixes { v4: bits, v6: bits }),
            settled: Duration::from_nanos(settled),
            banned: Duration::from_nanos(banned),
            bans,
        },
    ));
}
