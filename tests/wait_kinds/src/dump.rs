//! What tokio's own task dump sees of the cases: it polls every task once more and unwinds each.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::runtime::Handle;

/// The traces by task id, or why there are none. It is known to hang.
pub(crate) async fn traces() -> Value {
    let Ok(dump) = tokio::time::timeout(Duration::from_secs(30), Handle::current().dump()).await else {
        return Value::String("the dump did not end within 30 s".to_owned());
    };
    let task = |task: &tokio::runtime::dump::Task| (task.id().to_string(), task.trace().to_string().into());
    Value::Object(dump.tasks().iter().map(task).collect::<Map<_, _>>())
}
