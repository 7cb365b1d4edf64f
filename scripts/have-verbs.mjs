// Prints 1 when the headers that the verbs plugin needs are installed, else 0 (read by binding.gyp).
import { existsSync } from 'node:fs'

const headers = ['infiniband/verbs.h', 'rdma/rdma_cma.h']
const folders = ['/usr/include', '/usr/local/include']
const found = headers.every((header) => folders.some((folder) => existsSync(`${folder}/${header}`)))
console.log(found ? 1 : 0)
