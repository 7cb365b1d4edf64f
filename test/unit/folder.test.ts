import { execFile } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createFolder } from '../../lib/control/folder.js'

const root = join(import.meta.dirname, '../..')
let temporary: string

beforeAll(() => {
  temporary = mkdtempSync(join(tmpdir(), 'rfaas-folder-'))
  writeFileSync(join(temporary, 'file'), '')
  mkdirSync(join(temporary, 'open'))
  chmodSync(join(temporary, 'open'), 0o755)
  symlinkSync(join(temporary, 'nowhere'), join(temporary, 'dangling'))
})
afterAll(() => rmSync(temporary, { recursive: true, force: true }))

describe('createFolder', () => {
  it('makes every missing level for this user alone', () => {
    const path = join(temporary, 'a/b/c')
    createFolder('dataDir', path)
    expect(statSync(path).isDirectory()).toBe(true)
    for (const level of ['a', 'a/b', 'a/b/c']) {
      expect(statSync(join(temporary, level)).mode & 0o777).toBe(0o700)
    }
  })

  it('takes what is there, through a link, too', () => {
    symlinkSync(temporary, join(temporary, 'link'))
    createFolder('dataDir', join(temporary, 'link'))
    createFolder('dataDir', join(temporary, 'link/inside'))
    expect(statSync(join(temporary, 'inside')).isDirectory()).toBe(true)
  })

  it.each([
    ['a file', 'file', /file is not a folder/],
    ['one that others may enter', 'open', /other users may look into it \(chmod 700/],
    ['a path below a file', 'file/x/y', /file is not a folder/],
    ['a link to nothing', 'dangling', /dangling.*EEXIST/],
    ['a name that is too long', `x/${'y'.repeat(300)}`, /ENAMETOOLONG/],
  ])('refuses %s with what is in the way', (_what, name, reason) => {
    const value = join(temporary, name)
    expect(() => createFolder('dataDir', value)).toThrow(
      expect.objectContaining({
        code: 'ERR_RFAAS_INVALID_ARGUMENT',
        field: 'dataDir',
        value,
        message: expect.stringMatching(reason) as string,
      }),
    )
  })
})

describe.each(['resource-manager', 'executor-manager'])('the %s', (name) => {
  // /proc has no room for folders, and says so with the error of a parent that is missing.
  it.each(['/proc/x', '/proc/x/y/z'])('ends at once when its data is to be in %s', async (path) => {
    const main = join(root, 'dist', name, 'src/main.js')
    const args = [main, '--port', '0', '--data-dir', path]
    const { code, stderr } = await new Promise<{ code: unknown; stderr: string }>((resolve) => {
      const options = { timeout: 15_000, killSignal: 'SIGKILL' } as const
      execFile(process.execPath, args, options, (error, _stdout, text) => {
        resolve({ code: error?.code, stderr: text })
      })
    })
    expect(stderr).toMatch(new RegExp(`^${name}: dataDir ${path} cannot be used: .*/proc`))
    expect(code).toBe(2)
  })
})
