//! Serves one client, from its first message to its last.

mod device;
mod dispatch;
mod dma_commands;
mod drains;
mod handshake;
mod irqs;
mod regions;
mod state;
mod watch;

use std::sync::Arc;

use crate::acceptor::{Acceptor, Pending};
use crate::dma::DmaSpace;
use crate::options::Options;
use crate::report::{Counters, ServerEvent};
use crate::service::Service;
use crate::socket::{Ended, Inbox, Stream};
use drains::Drains;
use handshake::Handshake;
use state::Connection;
use watch::Watch;

/// Maximum size of a message besides its data, in bytes: headers, and one byte for each
/// interrupt of the largest number of interrupts.
const MESSAGE_MAX: usize = 16 << 10;

/// Serves one client until it ends. Nothing of it is left then except the device's own
/// state.
pub(crate) fn serve(service: &Service, acceptor: &Acceptor, client: Pending) {
    let Service { options, counters, shell, .. } = service;
    let Pending { fd, pid, .. } = client;
    let inbox =
        Inbox::new(Stream::new(fd, limit(options), options.patience, Arc::clone(&service.stop)));
    Counters::count(&counters.connections, 1);
    let mut connection = match attach(service, &inbox, pid) {
        Ok(connection) => connection,
        Err(why) => {
            drop(inbox);
            acceptor.free();
            return service.turned_away(why);
        }
    };
    Counters::set(&counters.attached, 1);
    Counters::set(&counters.pid, pid.and_then(|pid| u64::try_from(pid).ok()).unwrap_or(0));
    let logs = counters.sessions.allow().is_some();
    if logs {
        tracing::info!(device = shell.name(), ?pid, "a VMM attaches");
    }
    counters.report(|| ServerEvent::Attached { pid });
    let why = connection.run();
    // Ends all waits for the client; then the device's thread can end, and with it the
    // mappings that drains wait for.
    for inbox in [&inbox, &connection.requests] {
        inbox.end(Ended::Closed);
        inbox.stream().shut();
    }
    shell.detach();
    *service.guest.lock() = None;
    drop((connection, inbox));
    acceptor.free();
    Counters::set(&counters.draining, 0);
    Counters::set(&counters.attached, 0);
    Counters::set(&counters.pid, 0);
    if logs {
        tracing::info!(device = shell.name(), why, "the VMM is detached");
    }
    counters.report(|| ServerEvent::Detached { why });
}

/// Maximum size of a message that is accepted, in bytes.
fn limit(options: &Options) -> usize {
    options.max_data_xfer_size.max(4096) as usize + MESSAGE_MAX
}

/// Completes the handshake, and attaches the device.
fn attach<'a>(
    service: &'a Service,
    inbox: &Arc<Inbox>,
    pid: Option<i32>,
) -> Result<Connection<'a>, &'static str> {
    let Service { options, counters, shell, .. } = service;
    let Handshake { client, max_windows, twin, answer } = handshake::run(service, inbox)?;
    let requests = twin.map_or_else(
        || Arc::clone(inbox),
        |fd| {
            Inbox::twin(Stream::new(
                Arc::new(fd),
                limit(options),
                options.patience,
                Arc::clone(&service.stop),
            ))
        },
    );
    let fail = |what: &'static str, error: &dyn core::fmt::Display| {
        tracing::error!(device = shell.name(), %error, what);
        what
    };
    let space = DmaSpace::new(shell.name(), options, &requests, max_windows, pid, counters)
        .map_err(|error| fail("no guest can be created for it", &error))?;
    let most = client.max_data_xfer_size.min(u64::from(options.max_data_xfer_size));
    let messages = space.messages(usize::try_from(most).unwrap_or(4096), options);
    shell
        .attach(space.vdev().clone(), Some(messages), None)
        .map_err(|error| fail("the device cannot be attached", &error))?;
    *service.guest.lock() = Some(space.guest().clone());
    let connection = Connection {
        service,
        inbox: Arc::clone(inbox),
        requests,
        client,
        space,
        drains: Drains::new(options),
        watch: Watch::default(),
    };
    connection.send(&answer.0, &answer.1);
    Ok(connection)
}
