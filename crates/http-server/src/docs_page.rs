//! `GET /docs`: Swagger UI for the service's OpenAPI document. All files come from the binary, and the page loads nothing from elsewhere.

use std::sync::Arc;

use access::Access;
use axum::extract::Path;
use axum::http::header::{
    CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa_swagger_ui::Config;

use crate::error::ApiError;
use crate::openapi::{Content, Endpoints, Operation};

/// The files that the page loads, besides the script that starts Swagger UI.
const FILES: [&str; 3] = ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"];

/// The script that starts Swagger UI. It is a file of its own because the page's policy forbids inline scripts.
const START_FILE: &str = "start.js";

/// `validatorUrl`: the validator is a service on another host.
const START: &str = "\
SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#swagger-ui',
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  persistAuthorization: false,
});
";

/// The page loads only its own files and calls only this service. Swagger UI sets styles and data images by itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 3] =
    [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")];

/// Returns `/docs` and `/docs/{file}`. `title` is the title of the page.
pub(crate) fn docs_endpoints(title: &'static str) -> Endpoints {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"docs/favicon-32x32.png\">\n<link rel=\"stylesheet\" href=\"docs/swagger-ui.css\">\n\
         <body>\n<main id=\"swagger-ui\"></main>\n<script src=\"docs/swagger-ui-bundle.js\"></script>\n\
         <script src=\"docs/{START_FILE}\"></script>\n</body>\n</html>\n"
    );
    let page = async move || (HEADERS, [(CONTENT_TYPE, "text/html; charset=utf-8")], page.clone());
    Endpoints::default().get("/docs", Access::Open, page, page_operation).get(
        "/docs/{file}",
        Access::Open,
        file,
        file_operation,
    )
}

fn page_operation() -> Operation {
    let page = Content::text("text/html", "<!doctype html>");
    Operation::new("get_docs", "Documents", "Returns a page that shows this document.").answer(
        200,
        "The page.",
        page,
        &[],
    )
}

async fn file(Path(file): Path<String>) -> Response {
    if file == START_FILE {
        return (HEADERS, [(CONTENT_TYPE, "text/javascript")], START).into_response();
    }
    let found = FILES.contains(&&*file).then(|| utoipa_swagger_ui::serve(&file, Arc::new(Config::default())));
    let Some(Ok(Some(found))) = found else { return ApiError::of_status(StatusCode::NOT_FOUND).into_response() };
    // The files are compressed at build time (the feature `gzip`). Every browser accepts that.
    let headers = [(CONTENT_TYPE, found.content_type), (CONTENT_ENCODING, "gzip".to_owned())];
    (HEADERS, headers, found.bytes.into_owned()).into_response()
}

fn file_operation() -> Operation {
    let files = [&FILES[..], &[START_FILE]].concat();
    let contents = ["text/javascript", "text/css", "image/png"].map(|media_type| Content::text(media_type, ""));
    Operation::new("get_docs_file", "Documents", "Returns a file of the page.")
        .parameter(
            json!({ "name": "file", "in": "path", "required": true, "schema": { "type": "string", "enum": files } }),
        )
        .answer_of(200, "The file.", contents.into(), &[])
        .errors(&["not_found"])
}
