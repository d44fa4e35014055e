/* Drops the records whose value is among the last "count" different ones (at most 64, of up to 64 bytes). */
#include "smartmodule.h"

#define MOST 64

static struct {
    u8 value[MOST];
    u32 length;
} seen[MOST];
static u32 count, first, held;

EXPORT("init") i32 init(const u8 *input, u32 length, i32 version) {
    u64 value;
    (void)version;
    if (!number(parameter(input, length, TEXT("count")), &value) || value == 0 || value > MOST)
        return init_failed(TEXT("param count is to be 1 to 64"));
    count = (u32)value;
    return 0;
}

/* Whether the value is new; from then on it is not. */
static i32 is_new(struct bytes value) {
    if (value.length > MOST)
        return 1;
    for (u32 i = 0; i < held; i++)
        if (equal((struct bytes){seen[i].value, seen[i].length}, value))
            return 0;
    u32 place = held < count ? held++ : first++ % count;
    __builtin_memcpy(seen[place].value, value.at, value.length);
    seen[place].length = value.length;
    return 1;
}

EXPORT("look_back") i32 look_back(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record))
        is_new(record.value);
    return 0;
}

EXPORT("filter") i32 filter(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record))
        if (is_new(record.value))
            emit(&call, &record);
    return finish(&call);
}
