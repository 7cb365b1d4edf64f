// The folders in which managers keep their files.
import { accessSync, constants, mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { RfaasError } from '../errors.js'

/** Makes `path`, for this user alone, unless it is there; throws when this user cannot write to it, or
 * others may enter it.
 * One level after the other: mkdir() of Node's own that makes them all never returns where a folder
 * that exists, such as /proc, says ENOENT to what should be made in it. */
export function createFolder(field: string, path: string): void {
  const missing: string[] = []
  let nearest = resolve(path)
  try {
    while (!exists(nearest)) {
      missing.push(nearest)
      nearest = dirname(nearest)
    }
    if (!statSync(nearest).isDirectory()) throw new Error(`${nearest} is not a folder`)
    accessSync(nearest, constants.W_OK | constants.X_OK)
    for (const folder of missing.reverse()) create(folder)
    // Not every file in it has a mode of its own: the folder keeps others out of all of them.
    if ((statSync(path).mode & 0o077) !== 0) {
      throw new Error(`other users may look into it (chmod 700 ${path}, or another folder)`)
    }
  } catch (error) {
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `${field} ${path} cannot be used: ${(error as Error).message}: name a folder that this user can write to`,
      { cause: error, field, value: path, allowed: 'a folder that this user can write to' },
    )
  }
}

function exists(path: string): boolean {
  try {
    statSync(path)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // ENOTDIR: a file is in the way; the search comes to it.
    if (code === 'ENOENT' || code === 'ENOTDIR') return false
    throw error
  }
}

function create(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    // Another process may have made it meanwhile; a link to nothing says the same.
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EEXIST' || !exists(folder)) throw error
  }
}
