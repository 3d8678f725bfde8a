//! What models cost, which of them nobody knows the price of, and what another table would change in history.

use axum::Json;
use axum::extract::{Request, State};

use crate::ingest::body;
use crate::prices::{PriceRowJson, PricesJson, RepriceJson, RepriceRequest, UnpricedJson, UserFileJson};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// The price table in use, and how history stands to it.
#[utoipa::path(
    get, path = "/api/v1/prices", tag = "read",
    responses((status = 200, body = PricesJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<PricesJson>, Problem> {
    let (history_fingerprint, unpriced) =
        app.read(|reader| Ok((reader.priced_by()?, reader.unpriced()?))).await?;
    let in_use = app.prices.current();
    let of_file = {
        let app = app.clone();
        tokio::task::spawn_blocking(move || app.prices.reread()).await.map_err(|_| Problem::Internal)?
    };
    Ok(Json(PricesJson {
        fingerprint: in_use.fingerprint(),
        history_fingerprint,
        user_file: UserFileJson::of(&app.prices.user_file(), &of_file),
        rows: in_use.rows().map(PriceRowJson::of).collect(),
        unpriced: unpriced.iter().map(UnpricedJson::of).collect(),
    }))
}

/// Prices history anew by `prices.toml` as it is now, or says what that would change. Once it is done, what comes is
/// priced by it, too.
#[utoipa::path(
    post, path = "/api/v1/prices/reprice", tag = "read", request_body = RepriceRequest,
    responses((status = 200, body = RepriceJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn reprice(State(app): State<App>, request: Request) -> Result<Json<RepriceJson>, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let RepriceRequest { dry_run } = match bytes.is_empty() {
        true => RepriceRequest { dry_run: true },
        false => serde_json::from_slice(&bytes)
            .map_err(|e| Problem::BadRequest(format!("the body is not {{\"dry_run\": true|false}}: {e}")))?,
    };
    let history_fingerprint = app.read(|reader| reader.priced_by()).await?;
    let done = {
        let app = app.clone();
        tokio::task::spawn_blocking(move || {
            let table = app.prices.reread().map_err(|e| Problem::BadRequest(e.to_string()))?.table;
            let effects = app.store.reprice(table.clone(), dry_run)?;
            if !dry_run {
                app.prices.replace(table.clone());
                tracing::info!(fingerprint = table.fingerprint(), "history is priced anew");
            }
            Ok::<_, Problem>(RepriceJson::of(dry_run, history_fingerprint, table.fingerprint(), &effects))
        })
        .await
        .map_err(|_| Problem::Internal)??
    };
    Ok(Json(done))
}
