/* Keeps the records whose value contains what the parameter "key" says; without it, it refuses to start. */
#include "smartmodule.h"

static u8 kept[256];
static u32 kept_length;

EXPORT("init") i32 init(const u8 *input, u32 length, i32 version) {
    (void)version;
    struct bytes key = parameter(input, length, TEXT("key"));
    if (!key.at || key.length > sizeof(kept))
        return init_failed(TEXT("Missing param key"));
    __builtin_memcpy(kept, key.at, key.length);
    kept_length = key.length;
    return 0;
}

EXPORT("filter") i32 filter(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record))
        if (contains(record.value, (struct bytes){kept, kept_length}))
            emit(&call, &record);
    return finish(&call);
}
