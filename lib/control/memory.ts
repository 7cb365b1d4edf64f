/** What the runtime of a worker may take beside the memory of its lease: the control group of a lease is so
 * much larger for each of its cores. */
export const runtimeBytes = 64 * 2 ** 20
