// Calls functions of the compiled example packages outside of any worker.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..', '..')

export interface NativeCaller {
  /** Calls `name` of build/examples/<library>.so; throws with the function's own message. */
  call(library: string, name: string, input: Uint8Array, outputBytes: number): Buffer
  close(): void
}

/** Builds the examples, and the small program that loads them. */
export function buildNativeCaller(): NativeCaller {
  execFileSync(process.execPath, [join(root, 'examples', 'build.mjs')])
  const folder = mkdtempSync(join(tmpdir(), 'rfaas-call-package-'))
  const program = join(folder, 'call-package')
  const source = join(root, 'test', 'unit', 'call-package.cc')
  const include = join(root, 'native', 'include')
  const [compiler = 'c++', ...args] = process.env.CXX?.trim().split(/\s+/) ?? []
  execFileSync(compiler, [...args, '-std=c++20', '-I', include, '-o', program, source, '-ldl'])
  return {
    call(library, name, input, outputBytes) {
      const path = join(root, 'build', 'examples', `${library}.so`)
      const { status, signal, stdout, stderr } = spawnSync(
        program,
        [path, name, String(outputBytes)],
        { input, maxBuffer: 64 * 1024 * 1024 },
      )
      if (status !== 0) throw new Error(`${signal ?? status}: ${stderr.toString().trim()}`)
      return stdout
    },
    close: () => rmSync(folder, { recursive: true }),
  }
}
