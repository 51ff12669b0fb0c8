//! Stage 3b: which route a server name leads to. A pure lookup.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::names::{ServerName, ServerNamePattern};
use crate::model::rejection::Reason;

/// Server names and what they lead to; lookups cost the same however many there are.
#[derive(Debug)]
pub struct RouteTable<R> {
    exact: HashMap<ServerName, Arc<R>>,
    /// By the name without its first label: one look-up, since a wildcard stands for one label only.
    wildcard: HashMap<ServerName, Arc<R>>,
    default: Option<Arc<R>>,
}

impl<R> Default for RouteTable<R> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None }
    }
}

impl<R> RouteTable<R> {
    /// Lets `pattern` lead to `route`. The configuration makes sure that no pattern comes twice.
    pub fn insert(&mut self, pattern: ServerNamePattern, route: Arc<R>) {
        match pattern {
            ServerNamePattern::Exact(name) => {
                self.exact.insert(name, route);
            }
            ServerNamePattern::Wildcard(name) => {
                self.wildcard.insert(name, route);
            }
            ServerNamePattern::Default => self.default = Some(route),
        }
    }

    /// The route for what a client asked for: the exact name before the wildcard, the default route last.
    pub fn find(&self, server_name: Option<&ServerName>) -> Result<&Arc<R>, Reason> {
        let Some(name) = server_name else {
            return self.default.as_ref().ok_or(Reason::ServerNameMissing);
        };
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(name.parent()?))
            .or(self.default.as_ref())
            .ok_or(Reason::ServerNameUnknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(patterns: &[&str]) -> RouteTable<String> {
        let mut table = RouteTable::default();
        for text in patterns {
            let pattern = ServerNamePattern::parse(text).expect("a pattern");
            table.insert(pattern, Arc::new((*text).to_owned()));
        }
        table
    }

    fn find(table: &RouteTable<String>, name: &str) -> Result<String, Reason> {
        let name = ServerName::from_client_hello(name);
        table.find(Some(&name)).map(|route| route.to_string())
    }

    #[test]
    fn exact_before_wildcard_before_default() {
        let table = table(&["nas.x.example", "*.x.example", "*"]);
        assert_eq!(find(&table, "nas.x.example"), Ok("nas.x.example".into()));
        assert_eq!(find(&table, "ssh.x.example"), Ok("*.x.example".into()));
        assert_eq!(find(&table, "other.example"), Ok("*".into()));
        assert_eq!(table.find(None).map(|route| route.to_string()), Ok("*".into()));
    }

    #[test]
    fn without_a_default_route_nothing_else_is_answered() {
        let table = table(&["nas.x.example", "*.x.example"]);
        assert_eq!(find(&table, "x.example"), Err(Reason::ServerNameUnknown), "a wildcard is not its own parent");
        assert_eq!(find(&table, "a.b.x.example"), Err(Reason::ServerNameUnknown), "a wildcard is one label");
        assert_eq!(find(&table, "evilnas.x.example.evil"), Err(Reason::ServerNameUnknown));
        assert_eq!(find(&table, "example"), Err(Reason::ServerNameUnknown));
        assert_eq!(table.find(None), Err(Reason::ServerNameMissing));
    }
}
