/* Halves the even numbers and drops the odd ones; a value that is no number is an error. */
#include "smartmodule.h"

EXPORT("filter_map") i32 filter_map(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record)) {
        u64 value;
        u8 space[20];
        if (!number(record.value, &value))
            return fail(&call, &record, FILTER_MAP, TEXT("the value is no number"));
        if (value % 2)
            continue;
        record.value = digits(value / 2, space);
        emit(&call, &record);
    }
    return finish(&call);
}
