/*
 * <qvm/8250.h>: registers of an 8250 or 16550 UART.
 *
 * Offsets and bits are those of the public data sheet of the PC16550D. The header's name is
 * published, the names in it are [ours].
 */
#ifndef QVM_8250_H
#define QVM_8250_H

/* Offsets. 0 and 1 are others while SER8250_LCR_DLAB is set. */
#define SER8250_RBR 0 /* reads: received byte */
#define SER8250_THR 0 /* writes: byte to transmit */
#define SER8250_IER 1 /* interrupt enable */
#define SER8250_IIR 2 /* reads: interrupt identification */
#define SER8250_FCR 2 /* writes: FIFO control */
#define SER8250_LCR 3 /* line control */
#define SER8250_MCR 4 /* modem control */
#define SER8250_LSR 5 /* line status */
#define SER8250_MSR 6 /* modem status */
#define SER8250_SCR 7 /* scratch */
#define SER8250_DLL 0 /* DLAB: divisor, low byte */
#define SER8250_DLM 1 /* DLAB: divisor, high byte */
#define SER8250_NUM_REGS 8

/* Interrupt enable. */
#define SER8250_IER_RDA 0x01u  /* received data available */
#define SER8250_IER_THRE 0x02u /* transmitter holding register empty */
#define SER8250_IER_RLS 0x04u  /* receiver line status */
#define SER8250_IER_MS 0x08u   /* modem status */

/* Interrupt identification. */
#define SER8250_IIR_NONE 0x01u     /* no interrupt is pending */
#define SER8250_IIR_ID_MASK 0x0eu
#define SER8250_IIR_MS 0x00u       /* lowest priority */
#define SER8250_IIR_THRE 0x02u
#define SER8250_IIR_RDA 0x04u
#define SER8250_IIR_RLS 0x06u      /* highest priority */
#define SER8250_IIR_TIMEOUT 0x0cu  /* received data waits in the FIFO */
#define SER8250_IIR_FIFO 0xc0u     /* the FIFOs are enabled */

/* FIFO control. */
#define SER8250_FCR_ENABLE 0x01u
#define SER8250_FCR_CLEAR_RX 0x02u
#define SER8250_FCR_CLEAR_TX 0x04u
#define SER8250_FCR_DMA 0x08u
#define SER8250_FCR_TRIGGER_MASK 0xc0u /* receive interrupt at 1, 4, 8 or 14 bytes */
#define SER8250_FCR_TRIGGER_1 0x00u
#define SER8250_FCR_TRIGGER_4 0x40u
#define SER8250_FCR_TRIGGER_8 0x80u
#define SER8250_FCR_TRIGGER_14 0xc0u
#define SER8250_FIFO_SIZE 16 /* in bytes */

/* Line control. */
#define SER8250_LCR_BITS_MASK 0x03u /* 5 to 8 bits */
#define SER8250_LCR_BITS_8 0x03u
#define SER8250_LCR_STOP_2 0x04u
#define SER8250_LCR_PARITY 0x08u
#define SER8250_LCR_EVEN 0x10u
#define SER8250_LCR_STICK 0x20u
#define SER8250_LCR_BREAK 0x40u
#define SER8250_LCR_DLAB 0x80u

/* Modem control. */
#define SER8250_MCR_DTR 0x01u
#define SER8250_MCR_RTS 0x02u
#define SER8250_MCR_OUT1 0x04u
#define SER8250_MCR_OUT2 0x08u /* of PCs: connects the interrupt line */
#define SER8250_MCR_LOOP 0x10u

/* Line status. */
#define SER8250_LSR_DR 0x01u   /* data ready */
#define SER8250_LSR_OE 0x02u   /* overrun error */
#define SER8250_LSR_PE 0x04u   /* parity error */
#define SER8250_LSR_FE 0x08u   /* framing error */
#define SER8250_LSR_BI 0x10u   /* break */
#define SER8250_LSR_THRE 0x20u /* transmitter holding register empty */
#define SER8250_LSR_TEMT 0x40u /* transmitter empty */
#define SER8250_LSR_FIFOE 0x80u /* an error in the receive FIFO */

/* Modem status: changes since it was last read, and the state. */
#define SER8250_MSR_DCTS 0x01u
#define SER8250_MSR_DDSR 0x02u
#define SER8250_MSR_TERI 0x04u
#define SER8250_MSR_DDCD 0x08u
#define SER8250_MSR_CTS 0x10u
#define SER8250_MSR_DSR 0x20u
#define SER8250_MSR_RI 0x40u
#define SER8250_MSR_DCD 0x80u

#endif
