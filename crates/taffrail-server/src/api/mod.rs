//! The native API: every read of the house, and the old page's themes.
//!
//! Routes stand in four groups by who may use them; a route that is in no group does not exist.

pub(crate) mod aggregates;
pub(crate) mod anomalies;
pub(crate) mod auth;
pub(crate) mod calls;
pub(crate) mod context;
mod convert;
pub(crate) mod costs;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod forecasts;
pub(crate) mod git;
pub(crate) mod health;
pub(crate) mod imports;
pub(crate) mod ledger;
pub(crate) mod money;
pub(crate) mod params;
pub(crate) mod patterns;
pub(crate) mod prices;
pub(crate) mod sessions;
pub(crate) mod suggestions;
pub(crate) mod summary;
pub(crate) mod telemetry;
pub(crate) mod themes;
pub mod types;
pub(crate) mod windows;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::assets;
use crate::ingest::{hooks, otlp, routes_legacy};
use crate::metrics::{HttpLabels, RefusedLabels};
use crate::problem::Code;
use crate::security;
use crate::state::App;
use crate::stream;

#[derive(OpenApi)]
#[openapi(
    info(title = "Taffrail", description = "Flight recorder and circuit breaker for coding agents. \
        Times are integer milliseconds UTC, sizes bytes, shares percent. Errors are application/problem+json."),
    components(schemas(types::FrameJson, types::CostFrameJson)),
    tags(
        (name = "ingest", description = "open to this machine"),
        (name = "read", description = "needs the token"),
        (name = "live", description = "needs the token, or a named old page"),
        (name = "old contract", description = "as the old server; reads need the token, or a named old page"),
        (name = "service", description = "health, metrics, sign-in"),
    )
)]
struct Api;

/// Open to everybody who passes the host and origin checks.
fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(auth::enter))
        .routes(routes!(auth::session))
        .routes(routes!(auth::login))
        .routes(routes!(auth::logout))
}

/// Open to this machine.
fn ingest_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(hooks::post))
        .routes(routes!(hooks::post_batch))
        .routes(routes!(routes_legacy::post_event))
        .merge(otlp_routes())
}

/// OTLP over HTTP: on the main port and on its own.
fn otlp_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(otlp::http::logs))
        .routes(routes!(otlp::http::metrics))
        .routes(routes!(otlp::http::traces))
}

/// For the token, or an old page that was named.
fn old_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(routes_legacy::recent))
        .routes(routes!(routes_legacy::filter_options))
        .routes(routes!(routes_legacy::respond))
        .routes(routes!(themes::search, themes::create))
        .routes(routes!(themes::import))
        .routes(routes!(themes::stats))
        .routes(routes!(themes::get, themes::update, themes::delete))
        .routes(routes!(themes::export))
        .route("/api/themes/", axum::routing::any(themes::no_id))
        .routes(routes!(stream::stream))
}

/// For the token.
fn token_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(events::list))
        .routes(routes!(events::one))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::one))
        .routes(routes!(sessions::timeline))
        .routes(routes!(sessions::agents))
        .routes(routes!(context::context))
        .routes(routes!(context::quality))
        .routes(routes!(ledger::ledger))
        .routes(routes!(costs::costs))
        .routes(routes!(forecasts::forecasts))
        .routes(routes!(calls::list))
        .routes(routes!(calls::one))
        .routes(routes!(telemetry::list))
        .routes(routes!(telemetry::names))
        .routes(routes!(summary::summary))
        .routes(routes!(summary::filters))
        .routes(routes!(errors::list))
        .routes(routes!(errors::one))
        .routes(routes!(files::list))
        .routes(routes!(git::report))
        .routes(routes!(patterns::chains))
        .routes(routes!(patterns::repetitions))
        .routes(routes!(health::checks))
        .routes(routes!(health::metrics))
        .routes(routes!(prices::list))
        .routes(routes!(prices::reprice))
        .routes(routes!(auth::link))
        .routes(routes!(imports::transcripts))
        .routes(routes!(windows::figures))
        .routes(routes!(windows::series))
        .routes(routes!(windows::heatmap))
        .routes(routes!(windows::tools))
        .routes(routes!(windows::agents))
        .routes(routes!(anomalies::list))
        .routes(routes!(anomalies::detectors))
        .routes(routes!(anomalies::one))
        .routes(routes!(anomalies::investigate))
        .routes(routes!(anomalies::dismiss))
        .routes(routes!(anomalies::confirm))
        .routes(routes!(suggestions::list))
        .routes(routes!(suggestions::refresh))
        .routes(routes!(suggestions::one))
        .routes(routes!(suggestions::preview))
        .routes(routes!(suggestions::apply))
        .routes(routes!(suggestions::undo))
        .routes(routes!(suggestions::dismiss))
        .route("/openapi.json", axum::routing::get(openapi_json))
}

/// The whole server as one service.
pub(crate) fn router(app: &App) -> Router {
    let layered = |routes: OpenApiRouter<App>| -> Router<App> { routes.into() };
    let with = |app: &App| app.clone();
    layered(open_routes())
        .merge(layered(ingest_routes()).route_layer(from_fn_with_state(with(app), security::need_loopback)))
        .merge(
            layered(old_routes())
                .route_layer(from_fn_with_state(with(app), security::need_token_or_old_page)),
        )
        .merge(layered(token_routes()).route_layer(from_fn_with_state(with(app), security::need_token)))
        .fallback(assets::serve)
        .layer(from_fn_with_state(with(app), security::check_site))
        .layer(from_fn_with_state(with(app), observe))
        .with_state(app.clone())
}

/// The port that OTLP over HTTP has by convention, and nothing else on it.
pub(crate) fn otlp_router(app: &App) -> Router {
    let routes: Router<App> = otlp_routes().into();
    routes
        .route_layer(from_fn_with_state(app.clone(), security::need_loopback))
        .layer(from_fn_with_state(app.clone(), security::check_site))
        .layer(from_fn_with_state(app.clone(), observe))
        .with_state(app.clone())
}

/// The OpenAPI description of every route.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(Api::openapi())
        .merge(open_routes())
        .merge(ingest_routes())
        .merge(old_routes())
        .merge(token_routes())
        .into_openapi()
}

async fn openapi_json() -> axum::Json<utoipa::openapi::OpenApi> {
    axum::Json(openapi())
}

/// Counts requests by route, and puts on every answer what a browser must know.
pub(crate) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics.http.get_or_create(&HttpLabels { method, route, status }).inc();
    if let Some(Code(reason)) = response.extensions().get::<Code>() {
        app.metrics.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(API_CSP));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Nothing that the API answers is a page.
const API_CSP: &str = "default-src 'none'; frame-ancestors 'none'";

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
