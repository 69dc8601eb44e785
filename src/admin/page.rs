//! The live page: four files in the program, and nothing from elsewhere.

use std::time::Duration;

use axum::response::Response;
use hyper::StatusCode;

use super::routes::answer;

pub(super) fn html() -> Response {
    answer(StatusCode::OK, "text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(super) fn script() -> Response {
    answer(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("page/page.js"))
}

pub(super) fn style() -> Response {
    answer(StatusCode::OK, "text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(super) fn icon() -> Response {
    answer(StatusCode::OK, "image/svg+xml", include_str!("page/icon.svg"))
}

/// How often a stream of events shows that it is there, so that both ends notice when the other one is gone.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
