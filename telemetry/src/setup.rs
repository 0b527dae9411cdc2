use std::io::{self, IsTerminal};
use std::time::Duration;

use carrick_config::Observability;
use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::{Error, Format, Level, LevelSwitch, logs, panics, traces};

/// What the process writes about itself, and where to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The `service.name` of traces: what kind of process it is.
    pub service: String,
    /// The `service.instance.id` of traces: which one it is, e.g. `NSM_NAME`.
    pub instance: String,
    /// `NSM_LOG_LEVEL`. An unknown one is warned of and means `INFO`, since logs
    /// are no reason not to serve; an empty one means `INFO`.
    pub log_level: String,
    /// Text or JSON.
    pub log_format: Format,
    /// `NSM_OPEN_TELEMETRY_ENDPOINT` when `TELEMETRY` is `true`: where traces go
    /// by OTLP over insecure gRPC, as `host:port`. `None` makes no traces.
    pub traces: Option<String>,
}

impl Options {
    /// As the settings want it, of the process `instance`, which is a `service`.
    #[must_use]
    pub fn new(service: &str, instance: &str, settings: &Observability) -> Self {
        Self {
            service: service.to_owned(),
            instance: instance.to_owned(),
            log_level: settings.log_level.clone(),
            log_format: Format::default(),
            traces: settings.collector.clone(),
        }
    }
}

/// The logs and traces of the process.
#[derive(Debug)]
pub struct Telemetry {
    level: LevelSwitch,
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logs on standard error, traces, the W3C trace context, and a hook
    /// that logs panics; all of them for the whole process. Must be called in a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Installed`] when it is called twice, [`Error::Endpoint`] and
    /// [`Error::Exporter`] when the collector's address cannot be used. A
    /// collector that is away is no error: it may come later.
    pub fn install(options: &Options) -> Result<Self, Error> {
        let (dispatch, telemetry) = Self::build(options, io::stderr, io::stderr().is_terminal())?;
        tracing::dispatcher::set_global_default(dispatch).map_err(Error::Installed)?;
        panics::install();
        warn_of_unknown(&options.log_level);
        Ok(telemetry)
    }

    /// As [`Telemetry::install`], but writes logs to `writer`, and leaves it to the
    /// caller where the result is used; only the trace context is set up for the
    /// whole process. `terminal` says whether `writer` is one.
    ///
    /// # Errors
    ///
    /// As [`Telemetry::install`], without [`Error::Installed`].
    pub fn build<W>(options: &Options, writer: W, terminal: bool) -> Result<(Dispatch, Self), Error>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        // Also without export: whoever speaks gRPC asks for it.
        global::set_text_map_propagator(TraceContextPropagator::new());
        let endpoint = options.traces.as_deref();
        let provider = endpoint.map(|e| traces::provider(options, e)).transpose()?;

        let level: Level = options.log_level.parse().unwrap_or_default();
        let (filter, handle) = reload::Layer::new(logs::filter(level));
        let logs = lines(options.log_format, writer, terminal).with_filter(filter);
        let spans = provider.as_ref().map(|provider| {
            let tracer = provider.tracer("carrick");
            tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_filter(traces::filter())
        });
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(logs).with(spans));
        Ok((
            dispatch,
            Self {
                level: LevelSwitch::new(handle, level),
                provider,
            },
        ))
    }

    /// What changes the log level.
    #[must_use]
    pub fn level(&self) -> LevelSwitch {
        self.level.clone()
    }

    /// Changes the log level at SIGUSR1 (everything) and SIGUSR2 (as configured)
    /// until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::Signals`] when the kernel refuses the handlers.
    pub async fn follow_signals(&self, stop: CancellationToken) -> Result<(), Error> {
        self.level().follow_signals(stop).await
    }

    /// Sends the last spans, for at most `timeout`. Spans that end later are lost.
    ///
    /// # Errors
    ///
    /// [`Error::Flush`] when the collector did not take them in time.
    pub async fn shutdown(self, timeout: Duration) -> Result<(), Error> {
        let Some(provider) = self.provider else {
            return Ok(());
        };
        let shutdown = move || -> OTelSdkResult { provider.shutdown_with_timeout(timeout) };
        // It blocks until the exporter, which needs this runtime, is done.
        match tokio::task::spawn_blocking(shutdown).await {
            Ok(outcome) => outcome.map_err(Error::Flush),
            // The runtime is being shut down; nobody is left to wait for.
            Err(_) => Ok(()),
        }
    }
}

fn warn_of_unknown(level: &str) {
    if level.is_empty() {
        return;
    }
    if let Err(error) = level.parse::<Level>() {
        tracing::warn!("{error}; logging at {}", Level::default());
    }
}

fn lines<W>(format: Format, writer: W, terminal: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_span_events(FmtSpan::NONE);
    match format {
        Format::Auto if terminal => layer.with_ansi(true).boxed(),
        Format::Text => layer.with_ansi(terminal).boxed(),
        Format::Auto | Format::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    }
}
