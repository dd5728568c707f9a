//! Log lines of the process that a vdev is loaded into, as reports.

use core::fmt::Debug;

use gasp_qvm::inspect::CALLS;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::report::{Finding, Kind, Report, Reporter};

/// The target of what vdevs log themselves.
const OWN: &str = "gasp_qvm::exports::log";

/// Reports what is logged, from now on.
pub(super) fn install(reports: Reporter) {
    // It fails if there is another one, and then log lines go there.
    let _ = tracing_subscriber::registry().with(Reports(reports)).try_init();
}

struct Reports(Reporter);

impl<S: Subscriber> Layer<S> for Reports {
    fn enabled(&self, of: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let target = of.target();
        target == CALLS
            || target == OWN
            || (*of.level() <= Level::WARN && target.starts_with("gasp"))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let reports = &self.0;
        match event.metadata().target() {
            CALLS => called(reports, &line),
            OWN => reports.send(&Report::Message {
                level: event.metadata().level().as_str().to_lowercase(),
                text: line.message,
            }),
            _ => said(reports, &line),
        }
    }
}

fn called(reports: &Reporter, line: &Line) {
    match line.code {
        None => reports.call(&line.call),
        Some(code) => {
            reports.send(&Report::Returned);
            // Elsewhere it stops the start, which reports it.
            let stops_nothing =
                ["STATUS", "TERMINATE", "BUTTON"].iter().any(|name| line.call.contains(name));
            if code < 0 || (code != 0 && stops_nothing) {
                let errno = gasp::Errno::from_raw_os_error(code.saturating_abs());
                let advice = if code < 0 {
                    "return EOK or a positive error number such as EINVAL, which is how a host \
                     reads it anyway"
                } else {
                    "return EOK, also for commands that it does not know"
                };
                let message = format!("returned {code} ({errno})");
                let finding = Finding::new(Kind::ControlResult, message);
                reports.finding(finding.in_call(&line.call).advice(advice));
            }
        }
    }
}

/// What the host's side of the interface has to say.
fn said(reports: &Reporter, line: &Line) {
    // The walk reports these itself.
    let known = ["threads outlive", "it ends nevertheless", "an access ends the guest"];
    if known.iter().any(|start| line.message.starts_with(start)) {
        return;
    }
    let lacks = |function| {
        line.message.ends_with(&format!("no `{function}`"))
            || line.message.ends_with(&format!("no `{function}` function"))
    };
    let finding = if lacks("pulse") {
        Finding::new(Kind::NoPulse, "prepares or delivers an event, and its factory has no `pulse`")
            .advice("set `pulse` of its factory")
    } else if lacks("timer") {
        Finding::new(Kind::NoTimer, "creates a timer, and its factory has no `timer`")
            .advice("set `timer` of its factory")
    } else {
        let fields = line.fields.iter().map(|(name, value)| format!(", {name} {value}"));
        Finding::new(Kind::Host, format!("{}{}", line.message, fields.collect::<String>()))
    };
    reports.finding(finding);
}

/// The fields of an event.
#[derive(Default)]
struct Line {
    message: String,
    call: String,
    code: Option<i32>,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Line {
    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "code" => self.code = i32::try_from(value).ok(),
            name => self.fields.push((name, value.to_string())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "call" => value.clone_into(&mut self.call),
            "vdev" => {}
            name => self.fields.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
