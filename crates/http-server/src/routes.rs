//! The routes of a service with what each needs of its caller.

use access::Access;
use axum::Router;
use axum::http::Method;

/// A router, and what each of its routes needs. [`finish`](crate::finish()) completes it.
#[derive(Debug)]
pub struct Routes {
    pub(crate) router: Router,
    /// Matches as the router does: it is the same library.
    table: matchit::Router<Vec<(&'static str, Access)>>,
}

impl Routes {
    /// `accesses` has the method in lower case, the path and the access of each route of `router`.
    pub(crate) fn new(
        router: Router,
        accesses: impl IntoIterator<Item = (&'static str, &'static str, Access)>,
    ) -> Self {
        let mut routes = Self::from(router);
        for (method, path, access) in accesses {
            match routes.table.at_mut(path) {
                Ok(found) => found.value.push((method, access)),
                // The router has this path, so it is well-formed.
                Err(_) => drop(routes.table.insert(path, vec![(method, access)])),
            }
        }
        routes
    }

    /// Returns what the route needs that answers `method` at `path`. `None` if no route does.
    pub(crate) fn access(&self, method: &Method, path: &str) -> Option<Access> {
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        let found = self.table.at(path).ok()?;
        found.value.iter().find(|(name, _)| name.eq_ignore_ascii_case(method.as_str())).map(|(_, access)| *access)
    }
}

impl From<Router> for Routes {
    /// Anyone may call the routes of a bare router.
    fn from(router: Router) -> Self {
        Routes { router, table: matchit::Router::new() }
    }
}
