// What a function could try with what Node gives it. Answers as hostile.cc does.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'

const attack = (run) => async (input) => {
  try {
    return Buffer.from(String(await run(Buffer.from(input).toString())))
  } catch (error) {
    return Buffer.from(error.code ?? error.message)
  }
}

export const read = attack((path) => readFileSync(path, 'utf8').slice(0, 4096))
export const list = attack((path) => readdirSync(path).join('\n'))
export const write = attack((path) => writeFileSync(path, 'x'))
export const kill = attack((pid) => process.kill(Number(pid), 'SIGKILL'))
export const shell = attack((command) =>
  execFileSync('/bin/sh', ['-c', command], { encoding: 'utf8' }),
)
export const tcp = attack(
  (port) =>
    new Promise((resolve, reject) => {
      connect(Number(port), '127.0.0.1').once('connect', resolve).once('error', reject)
    }),
)
