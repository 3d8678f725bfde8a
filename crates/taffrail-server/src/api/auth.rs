//! Signing a browser in: a one-time link becomes a session cookie; the token never stands in a URL.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::params::Params;
use crate::clock;
use crate::ingest::body;
use crate::problem::{Problem, ProblemJson};
use crate::security::{COOKIE, LINK_TTL_MS, SESSION_TTL_MS};
use crate::state::App;

/// A link that opens one browser session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LinkJson {
    /// Open it in a browser, once.
    pub(crate) url: String,
    /// When it stops working, in milliseconds since the Unix epoch.
    pub(crate) expires_ms: i64,
}

/// Whether this browser is signed in.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AuthSessionJson {
    /// With the token or a session.
    pub(crate) signed_in: bool,
}

/// The token, typed into the page.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct LoginJson {
    /// What stands in the data directory's `token`.
    token: String,
}

#[derive(Deserialize)]
pub(crate) struct EnterQuery {
    #[serde(default)]
    code: String,
}

/// Makes a one-time link.
#[utoipa::path(
    post, path = "/api/v1/auth/link", tag = "service",
    responses((status = 200, body = LinkJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn link(State(app): State<App>) -> Result<Json<LinkJson>, Problem> {
    let now = clock::now_ms();
    let code = app.auth.new_link(now).map_err(|_| Problem::Internal)?;
    Ok(Json(LinkJson { url: format!("{}/auth?code={code}", app.base_url), expires_ms: now + LINK_TTL_MS }))
}

/// Spends a one-time link: sets the session cookie and goes to the page.
#[utoipa::path(
    get, path = "/auth", tag = "service", params(("code" = String, Query)),
    responses((status = 303, description = "signed in; to the page"), (status = 403, description = "the link was used or has expired"))
)]
pub(crate) async fn enter(
    State(app): State<App>,
    Params(query): Params<EnterQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let now = clock::now_ms();
    if !app.auth.take_link(&query.code, now) {
        // Opened again, as browsers do with their history: whoever is signed in has nothing to lose.
        if app.auth.is_signed_in(request.headers(), now) {
            return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response());
        }
        let body = "This sign-in link was used already or has expired.\nRun `taffrail up` for a new one.\n";
        return Ok((StatusCode::FORBIDDEN, body).into_response());
    }
    let to_page = [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, new_cookie(&app, now)?)];
    Ok((StatusCode::SEE_OTHER, to_page).into_response())
}

/// The header that opens a browser session.
fn new_cookie(app: &App, now: i64) -> Result<String, Problem> {
    let session = app.auth.new_session(now).map_err(|_| Problem::Internal)?;
    let age_s = SESSION_TTL_MS / 1000;
    Ok(format!("{COOKIE}={session}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict"))
}

/// Signs a browser in with the token itself.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "service", request_body = LoginJson,
    responses((status = 200, body = AuthSessionJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn login(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let login: LoginJson = serde_json::from_slice(&bytes)
        .map_err(|_| Problem::BadRequest("the body is not {\"token\": \"...\"}".to_owned()))?;
    if !app.auth.is_token(login.token.trim()) {
        return Err(Problem::Unauthorized);
    }
    let cookie = [(header::SET_COOKIE, new_cookie(&app, clock::now_ms())?)];
    Ok((cookie, Json(AuthSessionJson { signed_in: true })).into_response())
}

/// Signs this browser out.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", tag = "service", responses((status = 200, body = AuthSessionJson))
)]
pub(crate) async fn logout() -> Response {
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    ([(header::SET_COOKIE, cookie)], Json(AuthSessionJson { signed_in: false })).into_response()
}

/// Tells the page whether it is signed in.
#[utoipa::path(
    get, path = "/api/v1/auth/session", tag = "service",
    responses((status = 200, body = AuthSessionJson))
)]
pub(crate) async fn session(State(app): State<App>, headers: HeaderMap) -> Json<AuthSessionJson> {
    Json(AuthSessionJson { signed_in: app.auth.is_signed_in(&headers, clock::now_ms()) })
}
