//! From a request's method and path to its answer. Nothing else of a request is looked at.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};

use super::{Admin, gauges, json};
use crate::inspect::Health;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// As Prometheus asks for it (its manual, section "Text-based format").
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// It loads nothing and reads `status` of the same origin.
const PAGE: &str = include_str!("page.html");
const PAGE_MAY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

const PATHS: &str = "There are /, /health, /live, /metrics and /status.\n";

impl Admin {
    pub(super) fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(method) {
            let mut refusal = respond(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "Only GET and HEAD: nothing can be changed here.\n",
            );
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(ALLOW, allowed);
            return refusal;
        }
        match path {
            "/" => {
                let mut page = respond(StatusCode::OK, HTML, PAGE);
                let policy = HeaderValue::from_static(PAGE_MAY);
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
                page
            }
            "/live" => respond(StatusCode::OK, TEXT, "live\n"),
            "/health" => self.health(),
            "/status" => {
                let status = json::status(&self.view, Instant::now());
                respond(StatusCode::OK, JSON, status.to_string())
            }
            "/metrics" => respond(StatusCode::OK, METRICS, self.metrics()),
            _ => respond(StatusCode::NOT_FOUND, TEXT, PATHS),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let status = match self.view.health() {
            Health::Healthy | Health::Degraded => StatusCode::OK,
            Health::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = json::health(&self.view, Instant::now());
        respond(status, JSON, body.to_string())
    }

    fn metrics(&self) -> String {
        let mut text = self.recorded.render();
        gauges::put(
            &mut text,
            &self.view.pools(),
            self.view.totals(Instant::now()),
        );
        text
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
