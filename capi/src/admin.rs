//! Administration: one set of functions for all kinds of objects, which are described by documents.

use std::ffi::c_char;

use engine::admin::{CreateTopic, ListTopics};

use crate::arguments;
use crate::boundary::boundary;
use crate::client::fluvio_client;
use crate::completion::{Outcome, fluvio_status};
use crate::context::fluvio_context;
use crate::document::fluvio_document;
use crate::error::{Failure, c_text, fluvio_error, fluvio_error_kind};
use crate::handle;
use crate::options::{self, fluvio_options};

/// Kinds of objects of a cluster; more will follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum fluvio_object_kind {
    /// A topic.
    Topic = 0,
}

fn check_object(object: u32) -> Result<(), Failure> {
    if object == fluvio_object_kind::Topic as u32 {
        Ok(())
    } else {
        Err(Failure::invalid(format!("object is {object}: give a fluvio_object_kind")))
    }
}

/// Creates an object.
///
/// Parameters: `object` is a `fluvio_object_kind`; `options` describe it. Unknown keys are refused by name. For a topic:
///   Keys: `name` (required), `partitions` (1), `replication` (1), `ignore_rack` (false), `retention_ms`,
///   `segment_size_bytes`, `max_partition_size_bytes`, `compression` ("any", "none", "gzip", "snappy", "lz4", "zstd"),
///   `assignment` ([[spu, ...], ...] instead of partitions and replication), `dry_run` (false), `timeout_ms`.
/// Ownership: what is needed of the options is copied.
/// Completion: NONE, once the server has answered.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, CLOSED, DUPLICATE, FORKED. Of the completion: TOPIC_ALREADY_EXISTS, SERVER, TIMEOUT,
///   CONNECTION, CLOSED.
/// Cancellation: the outcome is unknown, the object may have been created.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_admin_create(
    client: *mut fluvio_client,
    context: *mut fluvio_context,
    object: u32,
    options: *const fluvio_options,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let client = handle::get(client)?;
            let admin = client.open()?.admin();
            check_object(object)?;
            let topic = CreateTopic::from_json(options::document(options)?)?;
            handle::get(context)?.start_counted(user_data, client.under_way(), async move {
                admin.create_topic(topic).await?;
                Ok(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Deletes an object.
///
/// Parameters: `object` is a `fluvio_object_kind`; `name` is UTF-8, `name_len` bytes.
/// Ownership: the name is copied.
/// Completion: NONE, once the server has answered.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, CLOSED, DUPLICATE, FORKED. Of the completion: TOPIC_NOT_FOUND, SERVER, TIMEOUT,
///   CONNECTION, CLOSED.
/// Cancellation: the outcome is unknown, the object may have been deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_admin_delete(
    client: *mut fluvio_client,
    context: *mut fluvio_context,
    object: u32,
    name: *const c_char,
    name_len: usize,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let client = handle::get(client)?;
            let admin = client.open()?.admin();
            check_object(object)?;
            let name = arguments::name("name", name, name_len)?.to_owned();
            handle::get(context)?.start_counted(user_data, client.under_way(), async move {
                admin.delete_topic(&name).await?;
                Ok(Outcome::done())
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}

/// Lists objects.
///
/// Parameters: `object` is a `fluvio_object_kind`; `options` may be NULL: all defaults. Unknown keys are refused by name. For
///   topics: Keys: `filter` (array of strings: names that contain one of them), `system` (false; true: the platform's own
///   topics instead of the others).
/// Ownership: what is needed of the options is copied.
/// Completion: DOCUMENT, freed with `fluvio_document_free`: a JSON array. Of topics: objects with `name`, `partitions`,
///   `replication`, `compression`, `retention_ms`, `segment_size_bytes`, `max_partition_size_bytes` (each may be null), `system`,
///   `status`, `reason`.
/// Threads: any.
/// Errors: of the call: INVALID_ARGUMENT, CLOSED, DUPLICATE, FORKED. Of the completion: SERVER, TIMEOUT, CONNECTION, CLOSED.
/// Cancellation: nothing has happened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fluvio_admin_list(
    client: *mut fluvio_client,
    context: *mut fluvio_context,
    object: u32,
    options: *const fluvio_options,
    user_data: u64,
    error: *mut *mut fluvio_error,
) -> fluvio_status {
    // SAFETY: the caller passes pointers that are NULL or valid.
    unsafe {
        boundary(error, || {
            let client = handle::get(client)?;
            let admin = client.open()?.admin();
            check_object(object)?;
            let options = ListTopics::from_json(options::document(options)?)?;
            handle::get(context)?.start_counted(user_data, client.under_way(), async move {
                let topics = admin.list_topics(options).await?;
                let text = serde_json::to_string(&topics).map_err(|error| {
                    Failure::new(
                        fluvio_error_kind::Panic,
                        format!("the list cannot be written as JSON: {error}"),
                    )
                })?;
                Ok(Outcome::value::<fluvio_document>(c_text(text)))
            })?;
            Ok(fluvio_status::Ok)
        })
    }
}
