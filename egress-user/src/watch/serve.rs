//! Serves the metrics over HTTP: `GET /metrics`.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{info, warn};
use tokio::{net::TcpListener, sync::Semaphore, task::spawn_blocking};

use crate::observe::{
    Sample,
    openmetrics::{self, Family, Kind, Number},
};

/// Connections at a time.
const CONNECTIONS: usize = 8;

/// How long a connection may take, from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the daemon has to say of itself.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    passes: AtomicU64,
    failures: AtomicU64,
    failures_in_a_row: AtomicU64,
    reloads: AtomicU64,
    bad_reloads: AtomicU64,
    last_is_bad: AtomicU64,
}

impl Served {
    /// Everything was as it should be, or was made so.
    pub fn passed(&self) {
        self.0.passes.fetch_add(1, Relaxed);
        self.0.failures_in_a_row.store(0, Relaxed);
    }

    /// A pass failed; it is reported where the one before it failed, too.
    pub fn failed(&self, error: &anyhow::Error) {
        self.0.failures.fetch_add(1, Relaxed);
        // At 2, and every minute or so after that.
        if self.0.failures_in_a_row.fetch_add(1, Relaxed) % 300 == 1 {
            warn!("{}", crate::explain(error).trim_end());
        }
    }

    /// The rules were read again.
    pub fn reloaded(&self, fine: bool) {
        let counts = &self.0;
        counts.reloads.fetch_add(1, Relaxed);
        counts.bad_reloads.fetch_add(u64::from(!fine), Relaxed);
        counts.last_is_bad.store(u64::from(!fine), Relaxed);
    }

    fn families(&self) -> Vec<Family> {
        let family = |name, help, kind, count: &AtomicU64| Family {
            name,
            help,
            kind,
            rows: vec![(Vec::new(), Number::Count(count.load(Relaxed)))],
        };
        let counts = &self.0;
        vec![
            family(
                "egress_watch_passes",
                "Times that the daemon looked at all namespaces and found or put all in force.",
                Kind::Counter,
                &counts.passes,
            ),
            family(
                "egress_watch_failures",
                "Times that it could not; it tries again.",
                Kind::Counter,
                &counts.failures,
            ),
            family(
                "egress_watch_reloads",
                "Times that the rules were read again.",
                Kind::Counter,
                &counts.reloads,
            ),
            family(
                "egress_watch_bad_reloads",
                "Times that they were refused, and the ones before stayed in force.",
                Kind::Counter,
                &counts.bad_reloads,
            ),
            family(
                "egress_watch_rules_are_stale",
                "Whether the rules in the files are refused, and older ones in force.",
                Kind::Gauge,
                &counts.last_is_bad,
            ),
        ]
    }
}

/// Serves until the command ends.
///
/// # Errors
///
/// Where the address is not to be had.
pub async fn listen(address: SocketAddr, served: Served) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening at {address}"))?;
    info!("metrics at http://{}/metrics", listener.local_addr()?);
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!("serving metrics: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let served = served.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, served.clone()));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE / 3)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = tokio::time::timeout(PATIENCE, connection).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    served: Served,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "/metrics is here\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET\n");
        let allow = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return Ok(response);
    }
    let read = spawn_blocking(move || {
        let mut families = Sample::read(None)?.families();
        families.extend(served.families());
        openmetrics::text(&families)
    });
    let read = read.await.context("reading the metrics");
    match read.and_then(|read| read) {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            let kind = hyper::header::HeaderValue::from_static(openmetrics::MEDIA_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Ok(response)
        }
        Err(error) => {
            // What it is may say more of the machine than who asks should know.
            warn!("reading the metrics: {error:#}");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(plain(status, "the log of egress watch says why\n"))
        }
    }
}
