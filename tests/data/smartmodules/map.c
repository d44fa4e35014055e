/* Turns the small letters of every value into capitals. */
#include "smartmodule.h"

EXPORT("map") i32 map(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record)) {
        u8 *value = (u8 *)record.value.at; /* the input is the module's own */
        for (u32 i = 0; i < record.value.length; i++)
            if (value[i] >= 'a' && value[i] <= 'z')
                value[i] -= 'a' - 'A';
        emit(&call, &record);
    }
    return finish(&call);
}
